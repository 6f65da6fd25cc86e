// containerd itself is asked what it reads in its files, before they are edited and after.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import * as z from 'zod';
import { UnacceptedError } from '../../agent/configure/config-dump.ts';
import { differenceOfEdit, differenceOfReadings } from '../../agent/configure/dump-reading.ts';
import type { RegistrySettings } from '../../agent/runtimes/containerd-registry.ts';
import {
  assertOutcome,
  CERTS,
  dumpOf,
  EDITED,
  JOURNAL,
  makeTestNode,
  PLAIN,
  STATE,
  type TestNode,
} from './configure-node.ts';
import { cutBefore } from './cut-power.ts';

/** Does not start with what weir sets. */
function refuseEdit(text: string): string {
  if (text.includes(CERTS)) throw new UnacceptedError('containerd: it is no good');
  return dumpOf(text);
}

/** Reads something else as soon as it is edited. */
function readOtherwise(text: string): string {
  return text === EDITED ? dumpOf(text).replace('"x"', '"y"') : dumpOf(text);
}

/** When it is asked: after how many restarts, and of which text. */
function noteAsked(node: TestNode): readonly string[] {
  const asked: string[] = [];
  node.dump = (text) => {
    asked.push(`${node.restarts} ${text === EDITED ? 'edited' : 'plain'}`);
    return dumpOf(text);
  };
  return asked;
}

test('it is asked before and after, and no word of it is kept', async (t) => {
  const node = await makeTestNode(t);
  const asked = noteAsked(node);
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  // Before it has to wait for its turn, and in it.
  assert.deepEqual(asked, ['0 plain', '0 plain', '0 edited']);
  assert.doesNotMatch((await node.read(JOURNAL)) ?? '', /"dump"/);
});

for (const [what, dump, reason] of [
  [
    'would not start',
    () => {
      throw new UnacceptedError('containerd: line 7 is wrong');
    },
    /^containerd would not start with its configuration as it is: containerd: line 7 is wrong$/,
  ],
  [
    'cannot be asked',
    () => {
      throw new Error('Access denied');
    },
    /^containerd cannot be asked what it reads in its configuration: Access denied$/,
  ],
  [
    'reads something else than weir',
    () => dumpOf(EDITED.replace(CERTS, '/other')),
    /^containerd reads its configuration otherwise than weir: of config_path, containerd reads "\/other", and weir nothing$/,
  ],
  [
    'says what is no TOML',
    () => 'usage: containerd\n',
    /^containerd reads its configuration otherwise than weir: what containerd says cannot be understood \(config dump:1: /,
  ],
] as const)
  test(`nothing is written where it ${what}, and nobody has to wait`, async (t) => {
    const node = await makeTestNode(t);
    const before = await node.files('/etc');
    node.dump = dump;
    assertOutcome(await node.configure(), 'refused', reason);
    assert.deepEqual(await node.files('/etc'), before);
    assert.deepEqual(await node.files(STATE), {});
    assert.deepEqual(node.turns, []);
    node.dump = dumpOf;
    assert.deepEqual(await node.configure(), { kind: 'configured' });
  });

for (const [what, dump, reason] of [
  [
    'does not start with the edit',
    refuseEdit,
    /^containerd would not start with \/etc\/containerd\/config\.toml as weir edited it: containerd: it is no good$/,
  ],
  [
    'does not see the edit',
    (text: string) => dumpOf(text).replace(CERTS, ''),
    /^\/etc\/containerd\/config\.toml does not do: containerd reads config_path "" with it$/,
  ],
  [
    'says what is no TOML with it',
    (text: string) => (text === EDITED ? 'usage: containerd\n' : dumpOf(text)),
    /config\.toml does not do: what containerd says cannot be understood \(config dump:1: /,
  ],
  [
    'reads something else by it',
    readOtherwise,
    /containerd reads another plugins\.io\.containerd\.grpc\.v1\.cri\.sandbox_image with it$/,
  ],
] as const)
  test(`where it ${what}, the file is put back, nothing is restarted, and it is not tried again`, async (t) => {
    const node = await makeTestNode(t);
    const before = await node.files('/etc');
    node.dump = dump;
    assertOutcome(await node.configure(), 'failed', reason);
    assert.deepEqual(await node.files('/etc'), before);
    assert.deepEqual(node.turns, ['taken', 'released later']);
    const { dumps } = node;
    node.dump = dumpOf;
    assertOutcome(
      await node.configure(),
      'failed',
      /^this was tried with the same files before, and failed: /,
    );
    assert.equal(node.dumps, dumps);
    assert.equal(node.restarts, 0);

    await node.write('/etc/containerd/config.toml', `${PLAIN}# corrected\n`);
    assert.deepEqual(await node.configure(), { kind: 'configured' });
  });

test('a runtime that falls ill meanwhile is not restarted for an edit that it has not read', async (t) => {
  const node = await makeTestNode(t);
  node.dump = (text) => {
    if (text === EDITED) node.refuse = () => 'it is down';
    return refuseEdit(text);
  };
  const ask = () =>
    node.refuse('') === undefined
      ? Promise.resolve({ notReady: undefined, running: [], configPath: '' })
      : Promise.reject(new Error('nothing listens there'));
  assertOutcome(await node.configure({ ask }), 'failed', /it is no good$/);
  assert.equal(await node.read(), PLAIN);
  assert.equal(node.restarts, 0);
});

test('where it cannot be asked once the file is edited, that is put back and tried again', async (t) => {
  const node = await makeTestNode(t);
  node.dump = (text) => {
    if (text === EDITED) throw new Error('the bus is away');
    return dumpOf(text);
  };
  assertOutcome(await node.configure(), 'refused', /^the bus is away$/);
  assert.equal(await node.read(), PLAIN);
  assert.deepEqual(await node.files(STATE), {});
  assert.equal(node.restarts, 0);
  node.dump = dumpOf;
  assert.deepEqual(await node.configure(), { kind: 'configured' });
});

test('whoever is stopped while it is asked leaves the turn and the rest to the next, who asks again', async (t) => {
  const node = await makeTestNode(t);
  const stop = new AbortController();
  node.dump = (text) => {
    if (text !== EDITED) return dumpOf(text);
    stop.abort();
    throw stop.signal.reason;
  };
  await assert.rejects(node.configure({ signal: stop.signal }), { name: 'AbortError' });
  assert.deepEqual(node.turns, ['taken', 'abandoned']);
  assert.equal(await node.read(), EDITED);
  node.dump = refuseEdit;
  assertOutcome(await node.configure(), 'failed', /it is no good$/);
  assert.equal(await node.read(), PLAIN);
  assert.equal(node.restarts, 0);
});

test('what a weir that did not ask has left amid is read as it was, and asked for now', async (t) => {
  for (const dump of [dumpOf, refuseEdit]) {
    const node = await makeTestNode(t);
    const stop = new AbortController();
    node.dump = (text) => {
      if (text !== EDITED) return dumpOf(text);
      stop.abort();
      throw stop.signal.reason;
    };
    await assert.rejects(node.configure({ signal: stop.signal }), { name: 'AbortError' });
    const written: unknown = JSON.parse((await node.read(JOURNAL)) ?? '');
    const { dump: _, ...entry } = z.looseObject({ dump: z.string() }).parse(written);
    await node.write(JOURNAL, JSON.stringify(entry));
    node.dump = dump;
    const end = await node.configure();
    assert.equal(end.kind, dump === dumpOf ? 'configured' : 'failed');
    assert.equal(await node.read(), dump === dumpOf ? EDITED : PLAIN);
  }
});

for (const [what, dump, reason] of [
  ['does not start with', refuseEdit, /it is no good$/],
  ['reads something else by', readOtherwise, /reads another plugins\.\S+\.sandbox_image with it$/],
] as const)
  test(`whenever the agent is killed, nothing is restarted for an edit that containerd ${what}`, async (t) => {
    let count = 0;
    for (let isKilled = true; isKilled; count++) {
      const node = await makeTestNode(t);
      isKilled = await killBefore(t, count, node, dump);
      await node.configure();
      assertOutcome(await node.configure(), 'failed', reason);
      assert.equal(await node.read(), PLAIN, String(count));
      assert.equal(node.restarts, 0, String(count));
      await node.restore();
      assert.deepEqual(await node.files(STATE), {}, String(count));
    }
    assert.ok(count > 20, String(count));
  });

// One that restarts by itself as soon as its file is there, as k0s has it

test('one that restarts by itself is asked before its edit, and once it has read it', async (t) => {
  const node = await makeTestNode(t);
  node.isByItself = true;
  const asked = noteAsked(node);
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  assert.deepEqual(asked, ['0 plain', '0 plain', '1 edited']);
});

test('one that restarts by itself, and cannot be asked, is configured without, and that is told', async (t) => {
  for (const dump of [
    (): string => {
      throw new Error('there is no bus');
    },
    (text: string): string => {
      if (text === EDITED) throw new Error('there is no bus');
      return dumpOf(text);
    },
  ]) {
    const node = await makeTestNode(t);
    node.isByItself = true;
    node.dump = dump;
    const lines: unknown[] = [];
    const log = pino({ level: 'warn' }, { write: (line) => lines.push(JSON.parse(line)) });
    assert.deepEqual(await node.configure({ log }), { kind: 'configured' });
    assert.match(JSON.stringify(lines), /"reason":"there is no bus".*"containerd is not asked what it reads/);
  }
});

test('one that restarts by itself is not edited where containerd reads otherwise already', async (t) => {
  const node = await makeTestNode(t);
  node.isByItself = true;
  node.dump = () => dumpOf(EDITED);
  assertOutcome(await node.configure(), 'refused', /^containerd reads its configuration otherwise than weir/);
  assert.equal(node.restarts, 0);
});

test('whenever the agent is killed, one that restarts by itself has its old file where it reads something else by the new one', async (t) => {
  let count = 0;
  for (let isKilled = true; isKilled; count++) {
    const node = await makeTestNode(t);
    node.isByItself = true;
    isKilled = await killBefore(t, count, node, readOtherwise);
    await node.configure();
    assertOutcome(await node.configure(), 'failed', /sandbox_image with it$/);
    assert.equal(await node.read(), PLAIN, String(count));
  }
  assert.ok(count > 20, String(count));
});

/** Before the n-th thing that it does, to ask among them. */
async function killBefore(
  t: TestContext,
  count: number,
  node: TestNode,
  dump: TestNode['dump'],
): Promise<boolean> {
  const isKilled = await cutBefore(t, count, async (spend) => {
    node.dump = (text) => {
      spend();
      return dump(text);
    };
    await node.configure();
  });
  node.dump = dump;
  return isKilled;
}

// What it says

const NONE: RegistrySettings = {
  configPath: undefined,
  conflicting: undefined,
  localPull: undefined,
  disabled: undefined,
  hasMirrors: false,
};
const at = (value: string) => ({ value, source: 'x:1' });
const V2 = '[plugins."io.containerd.grpc.v1.cri"';
const V3 = "[plugins.'io.containerd.cri.v1.images'";

for (const [what, dump, files, difference] of [
  [
    'no path of 1.x',
    `version = 2\n${V2}.registry]\nconfig_path = ""\n${V2}.registry.mirrors]\n`,
    {},
    undefined,
  ],
  ['no path of 2.x', `version = 4\n${V3}]\nuse_local_image_pull = false\n${V3}.registry]\n`, {}, undefined],
  [
    'the same path',
    `version = 3\n${V3}.registry]\nconfig_path = '/a'\n`,
    { configPath: at('/a') },
    undefined,
  ],
  [
    'another path',
    `version = 3\n${V3}.registry]\nconfig_path = '/a'\n`,
    { configPath: at('/b') },
    'of config_path, containerd reads "/a", and weir "/b"',
  ],
  [
    'mirrors',
    `version = 2\n${V2}.registry.mirrors.x]\nendpoint = []\n`,
    {},
    'of what excludes config_path, containerd reads "registry.mirrors", and weir nothing',
  ],
  [
    'other pulls',
    'version = 3\n',
    { localPull: at('use_local_image_pull') },
    'of what keeps pulls from the transfer service, containerd reads nothing, and weir "use_local_image_pull"',
  ],
  [
    'no CRI plugin',
    'version = 2\ndisabled_plugins = ["cri"]\n',
    {},
    'of disabled_plugins, containerd reads "cri", and weir nothing',
  ],
] as const)
  test(`a dump that says ${what} is compared with what weir reads`, () => {
    assert.equal(differenceOfReadings(dump, { ...NONE, ...files }), difference);
  });

test('an edit is what it is meant to be whatever the order is, and from whichever files', () => {
  const before = `version = 2\nimports = ["/b", "/a"]\noom_score = 0\n${V2}.registry]\nconfig_path = ""\n[x]\na = [1, 2]\n`;
  const after = `oom_score = 0\nversion = 2\nimports = ["/a", "/weir", "/b"]\n[x]\na = [1, 2]\n${V2}.registry]\nconfig_path = "/c"\n`;
  assert.equal(differenceOfEdit(before, after, '/c'), undefined);
  assert.equal(differenceOfEdit(undefined, after, '/c'), undefined);
  assert.match(differenceOfEdit(before, after, '/d') ?? '', /^containerd reads config_path "\/c" with it$/);
  for (const [from, to, key] of [
    ['[1, 2]', '[2, 1]', 'x.a'],
    ['oom_score = 0', 'oom_score = 1', 'oom_score'],
    ['[x]', '[y]', 'x'],
    [
      `${V2}.registry]`,
      `${V2}.registry.headers]\n${V2}.registry]`,
      'plugins.io.containerd.grpc.v1.cri.registry.headers',
    ],
  ] as const)
    assert.equal(
      differenceOfEdit(before, after.replace(from, to), '/c'),
      `containerd reads another ${key} with it`,
    );
});
