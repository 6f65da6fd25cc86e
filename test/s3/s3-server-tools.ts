// The S3 servers of the tests, each the project's own command, built from the version that the go.mod beside
// its name pins. Nothing is compiled into them, so no main.go is needed: Go's `tool` directive names the command.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Recipe } from '../tools/cache.ts';
import { run } from '../tools/command.ts';

const commands = {
  minio: 'github.com/minio/minio',
  versitygw: 'github.com/versity/versitygw/cmd/versitygw',
} as const;

export type S3ServerName = keyof typeof commands;

export const s3ServerNames: readonly S3ServerName[] = ['minio', 'versitygw'];

const flags = ['-trimpath', '-mod=readonly', '-buildvcs=false', '-ldflags', '-s -w'];

export function s3ServerTool(name: S3ServerName): Recipe {
  const source = join(import.meta.dirname, '..', 'tools', name);
  const hash = createHash('sha256').update(
    JSON.stringify([process.platform, process.arch, commands[name], flags]),
  );
  for (const file of ['go.mod', 'go.sum'])
    hash.update(`\0${file}\0`).update(readFileSync(join(source, file)));
  return {
    name,
    key: hash.digest('hex').slice(0, 16),
    make: async (directory) => {
      await run('go', ['build', ...flags, '-o', join(directory, name), commands[name]], {
        cwd: source,
        env: { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOWORK: 'off', GOFLAGS: '' },
      });
    },
  };
}
