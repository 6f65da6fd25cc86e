import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

const manifestSchema = z.object({ name: z.string(), version: z.string(), license: z.string() });
const LICENCE_FILE = /^(?:(?:un)?licen[cs]e|copying|notice)\b/i;

/**
 * The licences of the packages in these directories, which must go along with copies of them: each text once,
 * below the packages that it is of.
 *
 * @param apache text for a package of the Apache License, which is the same for all, that has no file with it.
 * @throws Error for a package that does not say what its licence is.
 */
export async function thirdPartyLicences(directories: readonly string[], apache: string): Promise<string> {
  const packagesByText = new Map<string, string[]>();
  for (const directory of directories) {
    const { title, text } = await licenceOf(directory, apache);
    packagesByText.set(text, [...(packagesByText.get(text) ?? []), title]);
  }
  const parts = [...packagesByText].map(([text, titles]) => `${titles.join('\n')}\n\n${text}\n`);
  return [`The programs hold parts of these packages.\n`, ...parts].join(`\n${'='.repeat(80)}\n`);
}

async function licenceOf(directory: string, apache: string): Promise<{ title: string; text: string }> {
  const file = join(directory, 'package.json');
  const manifest = manifestSchema.safeParse(JSON.parse(await readFile(file, 'utf8')));
  if (!manifest.success) throw new Error(`${file} does not say which licence its package has`);
  const { name, version, license } = manifest.data;
  const files = (await readdir(directory)).filter((entry) => LICENCE_FILE.test(entry)).toSorted();
  const texts = await Promise.all(files.map((entry) => readFile(join(directory, entry), 'utf8')));
  if (texts.length === 0 && license === 'Apache-2.0') texts.push(apache);
  if (texts.length === 0) throw new Error(`${directory} (${license}) has no file with its licence`);
  return {
    title: `${name} ${version} (${license})`,
    text: texts.map((text) => text.replaceAll('\r\n', '\n').trim()).join('\n\n'),
  };
}
