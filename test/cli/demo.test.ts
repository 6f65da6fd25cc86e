import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import process from 'node:process';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';

const DEMO = join(import.meta.dirname, '..', '..', 'demo', 'main.ts');

test('the demo shows a cold pull, a warm one that asks the upstream nothing, and an edit, and ends by itself', async () => {
  const child = spawn(process.execPath, [DEMO], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [output] = await Promise.all([text(child.stdout), once(child, 'close')]);
  assert.equal(child.exitCode, 0);
  const titles = [...output.matchAll(/^── (.*)$/gm)].map(([, title]) => title);
  assert.equal(titles.length, 5);
  assert.equal(titles[0], 'The configuration');
  assert.match(titles[1] ?? '', /^What weir wrote for containerd: .*\/docker\.io\/hosts\.toml$/);
  assert.deepEqual(titles.slice(2, 4), ['Cold pull of hello-weir:1', 'Warm pull of hello-weir:1']);
  assert.match(titles[4] ?? '', /^An edit of the configuration, and the file that is there \d+ ms later$/);
  const summary = output.trimEnd().split('\n').slice(-2);
  assert.match(summary[0] ?? '', /cold with 7 upstream requests, .* warm with 0\.$/);
  assert.match(summary[1] ?? '', /no Pod was changed/);
});
