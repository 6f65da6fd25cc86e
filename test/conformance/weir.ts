// The weir under test: `weir registry` as a process of its own.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Child, start } from '../tools/child.ts';

export interface WeirRegistry {
  readonly url: string;
  stop: () => Promise<void>;
}

const main = join(import.meta.dirname, '..', '..', 'cli', 'main.ts');
const answers = /"url":"(http:[^"]+)".*the registry answers/;

/** Serves the upstream as Docker Hub, with tags that it asks for anew each time: the suite moves them. */
export async function startWeirRegistry(directory: string, endpoint: string): Promise<WeirRegistry> {
  const config = join(directory, 'config.yaml');
  const tags = '{ ttl: 0s, staleWhileRevalidate: 0s }';
  await writeFile(config, `upstreams: { docker.io: { endpoint: "${endpoint}", tags: ${tags} } }\n`);
  const store = `file:${join(directory, 'store')}`;
  const weir: Child = await start(
    process.execPath,
    [main, 'registry', '--config', config, '--listen', '127.0.0.1:0', '--store', store],
    { ready: (child) => child.line(answers) },
  );
  return {
    url: answers.exec(await weir.line(answers))?.[1] ?? '',
    stop: async () => void (await weir.stop()),
  };
}
