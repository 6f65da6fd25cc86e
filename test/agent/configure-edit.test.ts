import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Refusal } from '../../agent/configure/refusal.ts';
import { findEdit } from '../../agent/configure/registry-edit.ts';
import { setString, unsetString } from '../../agent/configure/toml-edit.ts';
import { NotTomlError } from '../../agent/hosts-file.ts';
import { byBytes, type NodeView } from '../../agent/runtimes/node-view.ts';
import { parseVersion } from '../../agent/runtimes/version.ts';

const V2 = 'plugins."io.containerd.grpc.v1.cri"';
const V3 = "plugins.'io.containerd.cri.v1.images'";
const KEYS = ['plugins', 'io.containerd.grpc.v1.cri', 'registry', 'config_path'];
const DIR = '/certs';

/** A text, what becomes of it, and what it is when our value goes out of it alone; `undefined`: it is as before. */
const EDITS: Readonly<
  Record<string, readonly [before: string, after: string | undefined, without?: string]>
> = {
  'an empty value': [
    `[${V2}.registry]\n  config_path = "" # none yet\n`,
    `[${V2}.registry]\n  config_path = "/certs" # none yet\n`,
  ],
  'an empty value in single quotes': [
    `[${V2}.registry]\nconfig_path = ''`,
    `[${V2}.registry]\nconfig_path = '/certs'`,
    `[${V2}.registry]\nconfig_path = ""`,
  ],
  'an empty value of several lines': [
    `[${V2}.registry]\nconfig_path = """\n"""\nx = 1\n`,
    `[${V2}.registry]\nconfig_path = "/certs"\nx = 1\n`,
    `[${V2}.registry]\nconfig_path = ""\nx = 1\n`,
  ],
  'a table without it': [
    `version = 2\n[${V2}.registry]\n    headers = {}\n[other]\n`,
    `version = 2\n[${V2}.registry]\n    config_path = "/certs"\n    headers = {}\n[other]\n`,
  ],
  'a table without anything': [
    `  [${V2}.registry]\n\n  [${V2}.registry.headers]\n`,
    `  [${V2}.registry]\n    config_path = "/certs"\n\n  [${V2}.registry.headers]\n`,
  ],
  'a table that is the last line': [
    `[${V2}.registry]`,
    `[${V2}.registry]\n  config_path = "/certs"\n`,
    `[${V2}.registry]\n`,
  ],
  'a table with other quotes and spaces': [
    `[ plugins . 'io.containerd.grpc.v1.cri' . "registry" ] # here\n`,
    `[ plugins . 'io.containerd.grpc.v1.cri' . "registry" ] # here\n  config_path = "/certs"\n`,
  ],
  'line ends of another system': [
    `version = 2\r\n[${V2}.registry]\r\n# empty\r\n`,
    `version = 2\r\n[${V2}.registry]\r\n  config_path = "/certs"\r\n# empty\r\n`,
  ],
  'an inline table': [
    `[${V2}]\nregistry = { headers = { a = ["b"] } } # x\n`,
    `[${V2}]\nregistry = { config_path = "/certs", headers = { a = ["b"] } } # x\n`,
    `[${V2}]\nregistry = { config_path = "", headers = { a = ["b"] } } # x\n`,
  ],
  'an empty inline table': [
    `[${V2}]\nregistry = {}\n`,
    `[${V2}]\nregistry = { config_path = "/certs" }\n`,
    `[${V2}]\nregistry = { config_path = "" }\n`,
  ],
  'an inline table with an empty value': [
    `[${V2}]\nregistry = { config_path = '' }\n`,
    `[${V2}]\nregistry = { config_path = '/certs' }\n`,
    `[${V2}]\nregistry = { config_path = "" }\n`,
  ],
  'a plugin that is an inline table': [
    `[plugins]\n"io.containerd.grpc.v1.cri" = { x = [1, { y = 2 }] }\n`,
    `[plugins]\n"io.containerd.grpc.v1.cri" = { registry = { config_path = "/certs" }, x = [1, { y = 2 }] }\n`,
    `[plugins]\n"io.containerd.grpc.v1.cri" = { registry = { config_path = "" }, x = [1, { y = 2 }] }\n`,
  ],
  'keys with dots': [
    `[${V2}]\n  a = 1\n  registry.x = 2\n`,
    `[${V2}]\n  a = 1\n  registry.config_path = "/certs"\n  registry.x = 2\n`,
  ],
  'keys with dots from the root': [
    `${V2}.registry.config_path = ""\n`,
    `${V2}.registry.config_path = "/certs"\n`,
  ],
  'a plugin of keys with dots': [
    `[plugins]\n"io.containerd.grpc.v1.cri".x = 1\n`,
    `[plugins]\n"io.containerd.grpc.v1.cri".registry.config_path = "/certs"\n"io.containerd.grpc.v1.cri".x = 1\n`,
    `[plugins]\n"io.containerd.grpc.v1.cri".registry.config_path = ""\n"io.containerd.grpc.v1.cri".x = 1\n`,
  ],
  'a plugin that has a table': [
    `version = 2\n  [${V2}]\n    a = 1 # one\n\n  # of runtimes\n  [${V2}.containerd]\n    b = 2\n`,
    `version = 2\n  [${V2}]\n    a = 1 # one\n\n    [${V2}.registry]\n      config_path = "/certs"\n\n  # of runtimes\n  [${V2}.containerd]\n    b = 2\n`,
    `version = 2\n  [${V2}]\n    a = 1 # one\n\n    [${V2}.registry]\n\n  # of runtimes\n  [${V2}.containerd]\n    b = 2\n`,
  ],
  'a table below alone': [
    `    [${V2}.registry.headers]\n      a = ["b"]\n`,
    `  [${V2}.registry]\n    config_path = "/certs"\n\n    [${V2}.registry.headers]\n      a = ["b"]\n`,
    `  [${V2}.registry]\n\n    [${V2}.registry.headers]\n      a = ["b"]\n`,
  ],
  'nothing of it': [
    `version = 2\nroot = "/x"`,
    `version = 2\nroot = "/x"\n\n[${V2}.registry]\n  config_path = "/certs"\n`,
    `version = 2\nroot = "/x"\n\n[${V2}.registry]\n`,
  ],
  'nothing at all': ['', `[${V2}.registry]\n  config_path = "/certs"\n`, `[${V2}.registry]\n`],
  'what looks like it in a text of several lines': [
    `a = """\n[${V2}.registry]\nconfig_path = ""\n"""\n[${V2}.registry]\n`,
    `a = """\n[${V2}.registry]\nconfig_path = ""\n"""\n[${V2}.registry]\n  config_path = "/certs"\n`,
  ],
  'what looks like it in a comment, and dates, floats and arrays before it': [
    `# [${V2}.registry]\nt = 1979-05-27 07:32:00 # t\nf = [ 1e6, # { \n nan ]\n[[a]]\nb = 'x'\n[${V2}.registry]\n`,
    `# [${V2}.registry]\nt = 1979-05-27 07:32:00 # t\nf = [ 1e6, # { \n nan ]\n[[a]]\nb = 'x'\n[${V2}.registry]\n  config_path = "/certs"\n`,
  ],
  'another value': [`[${V2}.registry]\nconfig_path = "/mine"\n`, undefined],
  'a registry that is no table': [`[${V2}]\nregistry = 3\n`, undefined],
  'a plugin that is a list': [`[[${V2}]]\n`, undefined],
  'a value that is no text': [`[${V2}.registry]\nconfig_path = 3\n`, undefined],
};

suite('a value is set by the smallest edit, and taken out again', () => {
  for (const [name, [before, after, without]] of Object.entries(EDITS))
    test(name, () => {
      assert.equal(setString(before, KEYS, DIR), after);
      if (after === undefined) return;
      assert.equal(setString(after, KEYS, DIR), after);
      const hadEmpty = before.includes('config_path') && !name.startsWith('what looks like it');
      assert.equal(unsetString(after, KEYS, DIR, hadEmpty ? '' : undefined), without ?? before);
      assert.equal(unsetString(after, KEYS, '/other', undefined), undefined);
    });

  test('what is not TOML is not edited', () => {
    assert.throws(() => setString('[a\n', KEYS, DIR), NotTomlError);
  });
});

interface Case {
  readonly version: string;
  readonly files: Readonly<Record<string, string>>;
  /** The file that is edited, and its text then. */
  readonly edit?: readonly [path: string, text: string];
  readonly reason?: RegExp;
}
const MAIN = '/etc/containerd/config.toml';
const MORE = '/etc/containerd/conf.d/more.toml';
const OURS = '/etc/containerd/conf.d/weir.toml';
const IMPORTS = `imports = ["/etc/containerd/conf.d/*.toml"]\n`;
const RUNTIME = `[${V2}]\nsandbox_image = "x"\n`;
const set = (section: string): string => `[${section}.registry]\n  config_path = "/certs"\n`;
const DROP_IN = `version = 3\n\n[plugins."io.containerd.cri.v1.images".registry]\n  config_path = "/certs"\n`;

const CASES: Readonly<Record<string, Case>> = {
  'no file, before 2': { version: '1.6.20', files: {}, edit: [MAIN, `version = 2\n\n${set(V2)}`] },
  'no file, since 2': { version: '2.1.0', files: {}, edit: [MAIN, DROP_IN] },
  'a file of version 1': {
    version: '1.7.0',
    files: { [MAIN]: '[plugins.cri]\n' },
    edit: [MAIN, `[plugins.cri]\n\n${set('plugins.cri')}`],
  },
  'a file that says no version': {
    version: '1.7.0',
    files: { [MAIN]: 'root = "/x"\n' },
    edit: [MAIN, `root = "/x"\n\n${set('plugins.cri')}`],
  },
  'a file of version 2': {
    version: '1.7.0',
    files: { [MAIN]: 'version = 2\n' },
    edit: [MAIN, `version = 2\n\n${set(V2)}`],
  },
  'a file of version 2, read by 2.1': {
    version: '2.1.0',
    files: { [MAIN]: 'version = 2\n' },
    edit: [MAIN, `version = 2\n\n${set(V2)}`],
  },
  'a file of version 2 with the section of version 3, read by 2.1': {
    version: '2.1.0',
    files: { [MAIN]: `version = 2\n[${V3}.registry]\n` },
    edit: [MAIN, `version = 2\n${set(V3)}`],
  },
  'a file of version 3': {
    version: '2.0.0',
    files: { [MAIN]: `version = 3\n[${V3}]\n` },
    edit: [MAIN, `version = 3\n[${V3}]\n\n${set(V3)}`],
  },
  'a file of version 4': {
    version: '2.3.0',
    files: { [MAIN]: `version = 4\n[${V3}.registry]\n  config_path = ''\n` },
    edit: [MAIN, `version = 4\n[${V3}.registry]\n  config_path = '/certs'\n`],
  },
  'a directory of drop-ins, where they are merged': {
    version: '2.1.0',
    files: { [MAIN]: `version = 3\n${IMPORTS}`, [MORE]: `version = 3\n[${V3}]\nx = 1\n` },
    edit: [OURS, DROP_IN],
  },
  'a directory of drop-ins beside it': {
    version: '2.1.0',
    files: { [MAIN]: `version = 2\nimports = ["conf.d/*.toml"]\n[${V2}.registry]\nconfig_path = ""\n` },
    edit: [OURS, DROP_IN],
  },
  'a drop-in that is read after ours, and empties it': {
    version: '2.1.0',
    files: {
      [MAIN]: `version = 3\n${IMPORTS}`,
      '/etc/containerd/conf.d/zz.toml': `version = 3\n[${V3}.registry]\nconfig_path = ""\n`,
    },
    edit: ['/etc/containerd/conf.d/zz.toml', `version = 3\n[${V3}.registry]\nconfig_path = "/certs"\n`],
  },
  'a directory of drop-ins, where they take the place of the whole plugin': {
    version: '1.7.0',
    files: { [MAIN]: `version = 2\n${IMPORTS}${RUNTIME}` },
    edit: [MAIN, `version = 2\n${IMPORTS}${RUNTIME}\n${set(V2)}`],
  },
  'an import that has the plugin, with an empty value': {
    version: '1.7.0',
    files: { [MAIN]: `version = 2\n${IMPORTS}`, [MORE]: `version = 2\n[${V2}.registry]\nconfig_path = ""\n` },
    edit: [MORE, `version = 2\n[${V2}.registry]\nconfig_path = "/certs"\n`],
  },
  'an import that has the plugin, without a value': {
    version: '1.7.0',
    files: {
      [MAIN]: `version = 2\n${IMPORTS}[${V2}.registry]\nconfig_path = ""\n`,
      [MORE]: `version = 2\n${RUNTIME}`,
    },
    reason:
      /^config_path cannot be set in \/etc\/containerd\/config\.toml without changing what else it says/,
  },
  'a value that is there': { version: '1.7.0', files: { [MAIN]: `version = 2\n${set(V2)}` } },
  mirrors: {
    version: '1.7.0',
    files: { [MAIN]: `version = 2\n[${V2}.registry.mirrors."docker.io"]\nendpoint = ["x"]\n` },
    reason:
      /^registry\.mirrors \(\S+config\.toml:2\) together with config_path would keep the CRI plugin from loading/,
  },
  'certificates of a registry': {
    version: '1.7.0',
    files: { [MAIN]: `version = 2\n[${V2}.registry.configs.x.tls]\nca_file = "x"\n` },
    reason: /^registry\.configs\.x\.tls/,
  },
};

suite('of the files that containerd reads, the one is edited that counts', () => {
  for (const [name, { version, files, edit, reason }] of Object.entries(CASES))
    test(name, async () => {
      const looked = find(files, version);
      if (reason !== undefined) {
        await assert.rejects(looked, (error) => error instanceof Refusal && reason.test(error.message));
        return;
      }
      const found = await looked;
      assert.deepEqual(found && [found.path, found.after], edit);
      if (found === undefined) return;
      assert.equal(found.before, files[found.path]);
      assert.equal(await find({ ...files, [found.path]: found.after }, version), undefined);
    });
});

function find(files: Readonly<Record<string, string>>, text: string) {
  const version = parseVersion(text);
  assert.ok(version !== undefined);
  return findEdit({ view: viewOf(files), main: MAIN, version, directory: DIR });
}

/** A node of these files alone. */
function viewOf(files: Readonly<Record<string, string>>): NodeView {
  const below = (directory: string): string[] =>
    Object.keys(files).filter((path) => path.startsWith(`${directory}/`));
  return {
    root: '/',
    file: (path) =>
      Promise.resolve(Object.hasOwn(files, path) ? { text: files[path] ?? '', changedAt: 0 } : undefined),
    names: (directory) =>
      Promise.resolve(
        [
          ...new Set(below(directory).map((path) => path.slice(directory.length + 1).split('/')[0] ?? '')),
        ].toSorted(byBytes),
      ),
    exists: (path) => Promise.resolve(Object.hasOwn(files, path) || below(path).length > 0),
    isReadOnly: () => Promise.resolve(false),
    here: (path) => Promise.resolve(path),
  };
}
