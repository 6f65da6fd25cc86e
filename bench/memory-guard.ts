import { type Child, residentMegabytes } from './child.ts';

const LOOK_EVERY_MS = 500;

/** Kills any of these processes that takes more than so many megabytes, before the machine has to. */
export function guardMemory(children: readonly Child[], mostMB: number): Disposable {
  const look = async (child: Child): Promise<void> => {
    // One that has ended has no memory.
    const megabytes = await residentMegabytes(child.pid).catch(() => 0);
    if (megabytes <= mostMB) return;
    console.error(
      `process ${child.pid} takes ${megabytes} MB and is killed: this machine cannot keep up with so many`,
    );
    await child.stop('SIGKILL');
  };
  const timer = setInterval(() => {
    for (const child of children) void look(child);
  }, LOOK_EVERY_MS);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
