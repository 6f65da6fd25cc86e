import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

/**
 * Who may import whom: `oci ← config ← {kubernetes, agent, registry, webhook} ← cli`, and `process`, which knows none
 * of them, is open to all but `oci` and `config`. The three programs never know of each other, nor of the cluster
 * that they run in.
 */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  oci: [],
  config: ['oci'],
  process: [],
  kubernetes: ['oci', 'config', 'process'],
  agent: ['oci', 'config', 'process'],
  registry: ['oci', 'config', 'process'],
  webhook: ['oci', 'config', 'process'],
  cli: ['oci', 'config', 'process', 'kubernetes', 'agent', 'registry', 'webhook'],
};

/** Libraries that only certain files may know, so that replacing one touches little. */
const ONLY_IN: readonly (readonly [library: RegExp, files: RegExp])[] = [
  [/^chokidar$/, /^(config\/watch|agent\/[a-z-]+)\.ts$/],
  [/^@iarna\/toml$/, /^agent\//],
  [/^@aws-sdk\//, /^registry\/s3-bucket\.ts$/],
  [/^undici$/, /^registry\/(upstream[a-z-]*|egress)\.ts$/],
  [/^@kubernetes\/client-node$/, /^kubernetes\//],
  [/^commander$/, /^cli\//],
  [/^@grpc\//, /^agent\/cri[a-z-]*\.ts$/],
  [/^yaml$/, /^config\//],
  [/^@peculiar\//, /^webhook\/x509\.ts$/],
];

const root = join(import.meta.dirname, '..', '..');
const files = globSync(`{${Object.keys(MAY_IMPORT).join(',')}}/**/*.ts`, { cwd: root });

function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(/(?:\bfrom|\bimport\(?)\s*'([^']+)'/g)].map((match) => match[1] ?? '');
}

test('the folders import each other only as the design allows', () => {
  assert.ok(files.length > 20, 'the files are found');
  const wrong: string[] = [];
  for (const file of files) {
    const folder = file.split('/', 1)[0] ?? '';
    for (const imported of importsOf(file).filter((name) => name.startsWith('.'))) {
      const target = normalize(join(dirname(file), imported)).split('/', 1)[0] ?? '';
      const manifest = folder === 'cli' && imported === '../package.json';
      if (target !== folder && !manifest && !MAY_IMPORT[folder]?.includes(target))
        wrong.push(`${file} imports ${imported}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('libraries are known only where the design allows', () => {
  const wrong = files.flatMap((file) =>
    importsOf(file)
      .filter((name) => ONLY_IN.some(([library, allowed]) => library.test(name) && !allowed.test(file)))
      .map((name) => `${file} imports ${name}`),
  );
  assert.deepEqual(wrong, []);
});

test('the environment is read in the command only, and only the life cycle ends the process', () => {
  const reads = files.filter(
    (file) => !file.startsWith('cli/') && /process\.env\b/.test(readFileSync(join(root, file), 'utf8')),
  );
  assert.deepEqual(reads, []);
  const exits = files.filter((file) => /process\.exit\(/.test(readFileSync(join(root, file), 'utf8')));
  assert.deepEqual(exits, ['process/lifecycle.ts']);
});
