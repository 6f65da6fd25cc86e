import { basename, join } from 'node:path';
import { build, type Metafile } from 'esbuild';

/** A file of the bundle; all of them are in one directory. */
export interface BundledFile {
  readonly name: string;
  readonly content: Uint8Array;
}

export interface Bundle {
  readonly files: readonly BundledFile[];
  /** What the sources of bundled packages say about their licence in comments that are to be kept. */
  readonly legalComments: readonly string[];
  /** Directories of the packages that went into it, as in `node_modules/zod`. */
  readonly packages: readonly string[];
}

/** Packages written as CommonJS ask for Node's own modules by `require`, which a module has to make for itself. */
const REQUIRE =
  "import { createRequire as createRequireForBundle } from 'node:module'; const require = createRequireForBundle(import.meta.url);";
/** An uncaught error shows the line it came from: not a megabyte of it. */
const LINE_LIMIT = 160;
const LEGAL_COMMENTS = '.LEGAL.txt';

/**
 * The command as JavaScript for Node 24: `main.js`, the worker thread of `registry/hash-pool.ts` beside it, and
 * a chunk for what each subcommand loads. Only blanks and syntax are shortened, so that a stack trace keeps its
 * names without source maps.
 *
 * @throws Error when an import leads nowhere.
 */
export async function bundle(root: string): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['cli/main.ts', 'registry/hash-worker.ts'],
    outdir: 'dist',
    entryNames: '[name]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    // A package's modules before its CommonJS: what is not used of them is left out.
    mainFields: ['module', 'main'],
    banner: { js: REQUIRE },
    minifySyntax: true,
    minifyWhitespace: true,
    lineLimit: LINE_LIMIT,
    legalComments: 'external',
    metafile: true,
    write: false,
    logLevel: 'warning',
  });
  const files = outputFiles.map(({ path, contents }) => ({ name: basename(path), content: contents }));
  return {
    files: files.filter(({ name }) => !name.endsWith(LEGAL_COMMENTS)),
    legalComments: files
      .filter(({ name }) => name.endsWith(LEGAL_COMMENTS))
      .map(({ content }) => Buffer.from(content).toString('utf8').trim()),
    packages: packagesOf(metafile).map((directory) => join(root, directory)),
  };
}

function packagesOf(metafile: Metafile): string[] {
  const inputs = Object.values(metafile.outputs).flatMap((output) => Object.keys(output.inputs));
  const directories = inputs.flatMap((file) => /^.*\bnode_modules\/(?:@[^/]+\/)?[^/]+/.exec(file) ?? []);
  return [...new Set(directories)].toSorted();
}
