import type { CriAnswer } from './ask-cri.ts';
import type { Located } from './containerd-registry.ts';
import type { NodeView } from './node-view.ts';
import { parseVersion, type Version } from './version.ts';

/**
 * The runtime's version: by its own word, else by the package that it was installed from. Nothing is executed for it.
 * `undefined` when neither is to be had.
 */
export async function findVersion(
  view: NodeView,
  runtime: string,
  answer: Located<CriAnswer> | undefined,
): Promise<Located<Version> | undefined> {
  const value = answer === undefined ? undefined : parseVersion(answer.value.version);
  if (answer !== undefined && value !== undefined) return { value, source: answer.source };
  return runtime === 'containerd' ? await installedVersion(view) : undefined;
}

/** Lists of what is installed: of dpkg (Debian, Ubuntu), and of apk (Alpine). */
const PACKAGES = [
  {
    path: '/var/lib/dpkg/status',
    entry: /^Package: (containerd(?:\.io)?)\nStatus: install ok installed\n(?:.+\n)*?Version: (.+)$/m,
  },
  { path: '/lib/apk/db/installed', entry: /^P:(containerd)\n(?:.+\n)*?V:(.+)$/m },
];

/** Where a containerd may be that came by no package, and is run before one that did. */
const UNPACKAGED = '/usr/local/bin/containerd';

async function installedVersion(view: NodeView): Promise<Located<Version> | undefined> {
  if (await view.exists(UNPACKAGED)) return undefined;
  for (const { path, entry } of PACKAGES) {
    const [, name, text] = entry.exec((await view.file(path))?.text ?? '') ?? [];
    const value = text === undefined ? undefined : parseVersion(text);
    if (value !== undefined) return { value, source: `${path} (package ${name})` };
  }
  return undefined;
}
