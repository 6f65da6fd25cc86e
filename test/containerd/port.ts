// A port that a test may give up and take again. The kernel gives the higher ones to any outgoing connection,
// so one of those could be gone by then.

import { once } from 'node:events';
import { createServer } from 'node:net';

const first = 20_000;
const count = 10_000;
const attempts = 50;

export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const port = first + Math.floor(Math.random() * count);
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port found between ${first} and ${first + count}`);
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
