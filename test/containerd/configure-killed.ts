// An agent that configures a runtime, and is killed just before or just after it has had it restarted, unless somebody
// else kills it before.

import process from 'node:process';
import { pino } from 'pino';
import { configureRuntime } from '../../agent/configure/configure.ts';
import { findRestarter, type Restarter } from '../../agent/configure/restarter.ts';
import { askCri } from '../../agent/runtimes/ask-cri.ts';
import { seeNode } from '../../agent/runtimes/see-node.ts';

const [, , root = '', stateDir = '', missingConfigPath = '', when = ''] = process.argv;
const sight = { ...(await seeNode({ root, askCri })), missingConfigPath };
const { signal } = new AbortController();

async function deadly(...given: Parameters<typeof findRestarter>): Promise<Restarter> {
  const restarter = await findRestarter(...given);
  const { name, isByItself } = restarter;
  return {
    name,
    isByItself,
    run: () => restarter.run(),
    async restart(...how) {
      if (when === 'after') await restarter.restart(...how);
      process.stdout.write('killing\n');
      process.kill(process.pid, 'SIGKILL');
    },
  };
}

await configureRuntime({
  root,
  stateDir,
  version: '1.2.3',
  sight,
  takeTurn: () =>
    Promise.resolve({ lost: signal, release: () => Promise.resolve(), abandon: () => undefined }),
  log: pino({ level: 'silent' }),
  signal,
  findRestarter: deadly,
});
