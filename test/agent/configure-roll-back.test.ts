import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setString } from '../../agent/configure/toml-edit.ts';
import {
  assertOutcome,
  CERTS,
  CONFIG,
  EDITED,
  JOURNAL,
  makeTestNode,
  PATH_KEYS,
  PLAIN,
  STATE,
  type TestNode,
} from './configure-node.ts';
import { cutBefore } from './cut-power.ts';
import { failWrites } from './failing-disk.ts';

/** Does not start with what weir sets. */
function refuse(text: string): string | undefined {
  return text.includes(CERTS) ? 'it is down' : undefined;
}

/** The disk fails as soon as the runtime was restarted, until what is returned is called. */
function failAfterRestart(
  t: TestContext,
  node: TestNode,
  ...[code, isThere]: [code: 'ENOSPC' | 'EROFS', isThere: (path: string) => boolean]
): () => void {
  const heals: (() => void)[] = [];
  node.onRestart = (when) => {
    if (when === 'before') return;
    node.onRestart = () => undefined;
    heals.push(failWrites(t, code, isThere));
  };
  return () => {
    for (const heal of heals) heal();
  };
}

const findNobody = () => Promise.resolve({ name: 'test', isByItself: false, run: beAway, restart: beAway });
const beAway = () => Promise.reject(new Error('the bus is away'));
const noTurn = { takeTurn: () => Promise.reject(new Error('the API server is away')) };

for (const [what, code] of [
  ['full', 'ENOSPC'],
  ['read-only', 'EROFS'],
] as const) {
  test(`a file on a disk that is ${what} by then stays to be put back, and is at the next call, whoever has the turn`, async (t) => {
    const node = await makeTestNode(t);
    node.refuse = refuse;
    const heal = failAfterRestart(t, node, code, (path) => path.includes('/etc/containerd/'));
    await assert.rejects(
      node.configure(),
      /^Error: it is down; and \/etc\/containerd\/config\.toml is not put back: cannot write/,
    );
    assert.deepEqual(node.turns, ['taken', 'released later']);
    await assert.rejects(node.configure(noTurn), /is not put back/);
    await assert.rejects(node.restore(), /cannot write/);
    assert.equal(await node.read(), EDITED);
    assert.equal(node.restarts, 1);
    heal();
    assertOutcome(await node.configure(noTurn), 'failed', /^it is down$/);
    assert.equal(await node.read(), PLAIN);
    assert.equal(node.text, PLAIN);
    assertOutcome(await node.configure(), 'failed', /^this was tried .* and failed: it is down$/);
    assert.equal(node.restarts, 2);
  });

  test(`a file on a disk that is ${what} by then is put back by a restore as well`, async (t) => {
    const node = await makeTestNode(t);
    const before = await node.files('/etc');
    node.refuse = refuse;
    const heal = failAfterRestart(t, node, code, (path) => path.includes('/etc/containerd/'));
    await assert.rejects(node.configure(), /is not put back/);
    heal();
    assert.equal(await node.restore(), 'as it was');
    assert.deepEqual(await node.files('/etc'), before);
    assert.deepEqual(await node.files(STATE), {});
  });

  test(`a journal on a disk that is ${what} by then is no reason to leave the runtime down, nor to try once more`, async (t) => {
    const node = await makeTestNode(t);
    node.refuse = refuse;
    const heal = failAfterRestart(t, node, code, (path) => path.includes(STATE));
    await assert.rejects(node.configure(), /cannot write \S+journal\.json/);
    assert.equal(await node.read(), PLAIN);
    assert.equal(node.text, PLAIN);
    heal();
    assertOutcome(await node.configure(), 'failed', /^its file was changed back before it was known to do$/);
    assertOutcome(await node.configure(), 'failed', /^this was tried with the same files before/);
    assert.equal(node.restarts, 2);
  });
}

test('a whole disk that is full by then leaves all of it to the next call', async (t) => {
  const node = await makeTestNode(t);
  node.refuse = refuse;
  const heal = failAfterRestart(t, node, 'ENOSPC', () => true);
  await assert.rejects(node.configure(), /it is down; and \S+ is not put back/);
  assert.equal(await node.read(), EDITED);
  heal();
  assertOutcome(
    await node.configure(),
    'failed',
    /CRI \(nothing listens there\), 0\.001 s after its restart$/,
  );
  assert.equal(await node.read(), PLAIN);
  assert.equal(node.text, PLAIN);
});

test('a runtime that does with it keeps it, although that cannot be written down', async (t) => {
  const node = await makeTestNode(t);
  const heal = failAfterRestart(t, node, 'ENOSPC', (path) => path.includes(STATE));
  await assert.rejects(node.configure(), /cannot write \S+journal\.json/);
  assert.equal(await node.read(), EDITED);
  heal();
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  assert.equal(node.restarts, 1);
});

test('what cannot be written down before the restart is taken back without one, and tried again', async (t) => {
  const node = await makeTestNode(t);
  let isEdited = false;
  const heal = failWrites(t, 'ENOSPC', (path) => {
    isEdited ||= path.includes('/etc/containerd/');
    return isEdited && path.includes(STATE);
  });
  assertOutcome(await node.configure(), 'refused', /^cannot write \S+journal\.json/);
  assert.equal(await node.read(), PLAIN);
  assert.equal(node.restarts, 0);
  heal();
  assert.deepEqual(await node.configure(), { kind: 'configured' });
});

test('a file is put back also when nobody answers who would restart the runtime', async (t) => {
  const node = await makeTestNode(t);
  let isAway = false;
  const answer = <T>(value: T): Promise<T> =>
    isAway ? Promise.reject(new Error('the bus is away')) : Promise.resolve(value);
  const outcome = await node.configure({
    findRestarter: () =>
      Promise.resolve({
        name: 'test',
        isByItself: false,
        run: () => answer('one'),
        restart: () => {
          isAway = true;
          node.text = undefined;
          return answer(undefined);
        },
      }),
  });
  assertOutcome(outcome, 'failed', /^the bus is away; and rolling back failed: the bus is away$/);
  assert.equal(await node.read(), PLAIN);
});

test('a file that an agent left edited is put back also when nobody answers who restarted the runtime', async (t) => {
  const node = await makeTestNode(t);
  const stop = new AbortController();
  node.onRestart = (when) => {
    if (when === 'before') return;
    node.text = undefined;
    stop.abort();
  };
  await assert.rejects(node.configure({ signal: stop.signal }), { name: 'AbortError' });
  assertOutcome(
    await node.configure({ findRestarter: findNobody }),
    'failed',
    /nothing listens there.*the bus is away$/,
  );
  assert.equal(await node.read(), PLAIN);
});

test('a value that an administrator sets after weir failed to is theirs, and stays', async (t) => {
  const node = await makeTestNode(t);
  node.refuse = refuse;
  await node.configure();
  await node.write(CONFIG, EDITED);
  assert.equal(await node.restore(), 'unneeded');
  assert.equal(await node.read(), EDITED);
  assert.deepEqual(await node.files(STATE), {});
});

const OTHER = `${PLAIN}# other\n`;

test('every restart of a day counts, to roll back as well, whichever files it is for', async (t) => {
  const node = await makeTestNode(t);
  node.refuse = refuse;
  assertOutcome(await node.configure(), 'failed', /^it is down$/);
  await node.write(CONFIG, OTHER);
  assertOutcome(await node.configure(), 'refused', /^weir restarted the runtime 2 times within a day/);
  await node.passDay();
  assertOutcome(await node.configure(), 'failed', /^it is down$/);
  assert.equal(node.restarts, 4);
});

test('files that failed once are not tried again after others failed too', async (t) => {
  const node = await makeTestNode(t);
  node.refuse = refuse;
  await node.configure();
  await node.passDay();
  await node.write(CONFIG, OTHER);
  await node.configure();
  await node.passDay();
  await node.write(CONFIG, PLAIN);
  assertOutcome(await node.configure(), 'failed', /^this was tried .* and failed: it is down$/);
  assert.equal(node.restarts, 4);
});

test('files that failed once are not tried again after others could not be written', async (t) => {
  const node = await makeTestNode(t);
  node.refuse = refuse;
  await node.configure();
  await node.passDay();
  const journal = await node.read(JOURNAL);
  await node.write(CONFIG, OTHER);
  const heal = failWrites(t, 'ENOSPC', (path) => path.includes('/etc/containerd/'));
  assertOutcome(await node.configure(), 'refused', /no space left/);
  heal();
  assert.deepEqual(JSON.parse((await node.read(JOURNAL)) ?? ''), JSON.parse(journal ?? ''));
  await node.write(CONFIG, PLAIN);
  assertOutcome(await node.configure(), 'failed', /^this was tried with the same files before/);
  assert.equal(node.restarts, 2);
});

test('whenever the agent is killed at other files, those that failed once are not tried again', async (t) => {
  let count = 0;
  for (let isKilled = true; isKilled; count++) {
    const node = await makeTestNode(t);
    node.refuse = refuse;
    await node.configure();
    await node.passDay();
    await node.write(CONFIG, OTHER);
    isKilled = await cutBefore(t, count, async (spend) => {
      node.onRestart = spend;
      await node.configure();
    });
    node.onRestart = () => undefined;
    await node.configure();
    await node.write(CONFIG, PLAIN);
    node.text = PLAIN;
    assertOutcome(await node.configure(), 'failed', /^this was tried .* and failed: it is down$/);
  }
  assert.ok(count > 20, String(count));
});

test('a file that is back already keeps nobody waiting for the restart that it brings', async (t) => {
  const node = await makeTestNode(t);
  node.isByItself = true;
  node.refuse = refuse;
  const heal = failAfterRestart(t, node, 'ENOSPC', (path) => path.includes('/etc/containerd/'));
  await assert.rejects(node.configure(), /is not put back/);
  heal();
  await node.write(CONFIG, PLAIN);
  node.text = PLAIN;
  assertOutcome(await node.configure(), 'failed', /^it is down$/);
  assert.equal(node.restarts, 1);
});

test('what weir set in another file before is known, and goes, after an attempt that could not be written', async (t) => {
  const node = await makeTestNode(t);
  await node.configure();
  const changed = EDITED.replace(CERTS, '');
  await node.write(CONFIG, changed);
  const heal = failWrites(t, 'ENOSPC', (path) => path.includes('/etc/containerd/'));
  assertOutcome(await node.configure(), 'refused', /no space left/);
  heal();
  assert.equal(await node.read(), changed);
  await node.write(CONFIG, setString(changed, PATH_KEYS, CERTS) ?? '');
  assert.equal(await node.restore(), 'as it was');
  assert.equal(await node.read(), PLAIN);
});
