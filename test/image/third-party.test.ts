import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { thirdPartyLicences } from '../../build/third-party.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

describe('the licences of bundled packages', () => {
  let scratch: string;
  before(async () => {
    scratch = await makeScratch();
  });
  after(() => removeScratch(scratch));

  const packageOf = async (name: string, license: string | undefined, files: Record<string, string>) => {
    const directory = join(scratch, name);
    await mkdir(directory);
    await writeFile(join(directory, 'package.json'), JSON.stringify({ name, version: '1.0.0', license }));
    for (const [file, text] of Object.entries(files)) await writeFile(join(directory, file), text);
    return directory;
  };

  it('have each text once, with notices, and the common text of the Apache License', async () => {
    const text = await thirdPartyLicences(
      [
        await packageOf('one', 'MIT', { LICENSE: 'Do what you like.\n', 'README.md': 'One.' }),
        await packageOf('two', 'MIT', { 'LICENSE.md': 'Do what you like.', 'NOTICE.txt': 'By two.' }),
        await packageOf('three', 'MIT', { license: 'Do what you like.\r\n' }),
        await packageOf('four', 'Apache-2.0', {}),
      ],
      'Apache License',
    );
    const rule = '='.repeat(80);
    assert.equal(
      text,
      [
        'The programs hold parts of these packages.\n',
        'one 1.0.0 (MIT)\nthree 1.0.0 (MIT)\n\nDo what you like.\n',
        'two 1.0.0 (MIT)\n\nDo what you like.\n\nBy two.\n',
        'four 1.0.0 (Apache-2.0)\n\nApache License\n',
      ].join(`\n${rule}\n`),
    );
  });

  it('are missed when a package has none, or does not say which', async () => {
    const silent = await packageOf('silent', undefined, { LICENSE: 'Some.' });
    await assert.rejects(
      thirdPartyLicences([silent], ''),
      /silent\/package\.json does not say which licence/,
    );
    const without = await packageOf('without', 'MIT', {});
    await assert.rejects(thirdPartyLicences([without], ''), /without \(MIT\) has no file with its licence/);
  });
});
