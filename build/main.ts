/**
 * `npm run build`: the command as a few JavaScript files in `dist/`, or in the directory that is named, with the
 * licences that belong to them. Only the container image needs it; everything else runs the sources.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import process from 'node:process';
import { VERSION } from '../cli/version.ts';
import { bundle } from './bundle.ts';
import { thirdPartyLicences } from './third-party.ts';

const root = join(import.meta.dirname, '..');
const target = resolve(process.argv[2] ?? join(root, 'dist'));

const { files, packages, legalComments } = await bundle(root);
const licence = await readFile(join(root, 'LICENSE'), 'utf8');
const licences = [await thirdPartyLicences(packages, licence), ...legalComments];
const manifest = { name: 'weir', version: VERSION, type: 'module', license: 'Apache-2.0' };

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
for (const { name, content } of files) await writeFile(join(target, name), content);
await writeFile(join(target, 'package.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
await writeFile(join(target, 'LICENSE'), licence);
await writeFile(join(target, 'THIRD-PARTY.txt'), `${licences.join('\n\n')}\n`);

const size = files.reduce((sum, { content }) => sum + content.length, 0);
console.log(
  `${target}: ${files.length} files, ${(size / 1e6).toFixed(1)} MB, of ${packages.length} packages and weir`,
);
