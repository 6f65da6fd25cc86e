// Completes package-lock.json after `npm install` on a machine whose package registry does not have the builds for
// other platforms: npm leaves those out then, and `npm ci` refuses the file everywhere. Run it as
// `node test/tools/complete-lock-file.ts`; test/structure/lock-file.test.ts says when it is needed.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';

const file = join(import.meta.dirname, '..', '..', 'package-lock.json');
const lockSchema = z.looseObject({
  packages: z.record(
    z.string(),
    z.looseObject({ optionalDependencies: z.record(z.string(), z.string()).optional() }),
  ),
});

const platform =
  /(android|darwin|freebsd|linux|openharmony|win32)-(arm64|arm|x64|ia32|ppc64|riscv64|s390x)(?:-(eabi|gnueabihf|musleabihf|gnu|musl|msvc))?$/;

const lock = lockSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
for (const { optionalDependencies = {} } of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(optionalDependencies)) {
    const [, os, cpu, abi = ''] = platform.exec(name) ?? [];
    if (lock.packages[`node_modules/${name}`] !== undefined) continue;
    if (os === undefined || cpu === undefined)
      throw new Error(`${name} does not say by its name what it is for`);
    const libc = abi.includes('musl') ? ['musl'] : abi.includes('gnu') ? ['glibc'] : undefined;
    const entry = { version, cpu: [cpu], dev: true, ...(libc && { libc }), optional: true, os: [os] };
    lock.packages[`node_modules/${name}`] = entry;
  }
}
const sorted = Object.entries(lock.packages).toSorted(([a], [b]) => (a < b ? -1 : 1));
writeFileSync(file, `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, undefined, 2)}\n`);
