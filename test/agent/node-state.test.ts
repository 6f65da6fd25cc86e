import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { HostState } from '../../agent/change.ts';
import { nodeState, unconfigured } from '../../agent/node-state.ts';
import type { Proof } from '../../agent/proof.ts';
import { failedBy } from '../../agent/reason-code.ts';
import { fileProblem } from '../../process/file-problem.ts';
import { configOf } from './node-files.ts';

const CONFIG = configOf('upstreams: { docker.io: {}, ghcr.io: {} }');
const GOOD: HostState = { kind: 'configured' };
const EDITED: HostState = { kind: 'overridden', reason: 'F was edited' };
const ILL: HostState = { kind: 'withdrawn', reason: 'the mirror is ill' };
const PROVEN: Proof = { kind: 'proven', runtime: { name: 'containerd', version: '2.3' } };

suite('what is said of a node', () => {
  const table: Readonly<
    Record<
      string,
      [
        states: readonly [HostState, HostState],
        proof: Proof | undefined,
        mirror: string,
        upstreams: readonly [string, string],
        reason: string | undefined,
      ]
    >
  > = {
    'that obeys': [[GOOD, GOOD], PROVEN, 'configured', ['configured', 'configured'], undefined],
    'of which nothing is known yet': [
      [GOOD, GOOD],
      undefined,
      'configured',
      ['configured', 'configured'],
      undefined,
    ],
    'that could not be proven': [
      [GOOD, GOOD],
      { kind: 'unproven', reason: 'no CRI' },
      'configured',
      ['configured', 'configured'],
      'unproven: no CRI',
    ],
    'that goes past the mirror': [
      [GOOD, EDITED],
      { kind: 'bypassed', reason: 'R' },
      'fallback',
      ['bypassed', 'overridden'],
      'the runtime does not ask the mirror: R; ghcr.io: overridden: F was edited',
    ],
    'with a file that somebody edited': [
      [GOOD, EDITED],
      PROVEN,
      'fallback',
      ['configured', 'overridden'],
      'ghcr.io: overridden: F was edited',
    ],
    'whose mirror is ill, in one sentence': [
      [ILL, ILL],
      undefined,
      'fallback',
      ['withdrawn', 'withdrawn'],
      'withdrawn: the mirror is ill',
    ],
    'with different troubles': [
      [ILL, EDITED],
      undefined,
      'fallback',
      ['withdrawn', 'overridden'],
      'docker.io: withdrawn: the mirror is ill; ghcr.io: overridden: F was edited',
    ],
  };
  for (const [name, [[docker, ghcr], proof, mirror, upstreams, reason]] of Object.entries(table))
    test(name, () => {
      const states = new Map([
        ['docker.io', docker],
        ['ghcr.io', ghcr],
      ]);
      const state = nodeState(CONFIG, states, proof);
      assert.equal(state.mirror, mirror);
      assert.deepEqual([...state.upstreams.values()], upstreams);
      assert.equal(state.reason, reason);
    });

  test('that is switched off, whatever was', () => {
    const states = new Map([['docker.io', EDITED]]);
    assert.deepEqual(nodeState(configOf('enabled: false\nupstreams: { docker.io: {} }'), states, undefined), {
      mirror: 'off',
      upstreams: new Map(),
      reasons: new Map(),
    });
  });

  test('has a word for each upstream that is not as it is to be', () => {
    const full = fileProblem('write', '/f', Object.assign(new Error('no space'), { code: 'ENOSPC' }));
    const states = new Map<string, HostState>([
      ['a.io', GOOD],
      ['b.io', EDITED],
      ['c.io', failedBy(new Error('b.io: cannot write', { cause: full }), 'cannot write')],
      ['d.io', failedBy(new Error('of another kind'), 'of another kind')],
      ['e.io', { kind: 'unsupported', reason: 'F is written by k3s', code: 'generated-file' }],
      ['f.io', ILL],
    ]);
    const reasons = (proof: Proof): object => Object.fromEntries(nodeState(CONFIG, states, proof).reasons);
    const words = {
      'b.io': 'user-file',
      'c.io': 'ENOSPC',
      'd.io': 'error',
      'e.io': 'generated-file',
      'f.io': 'mirror-ill',
    };
    assert.deepEqual(reasons(PROVEN), words);
    assert.deepEqual(reasons({ kind: 'bypassed', reason: 'R' }), { 'a.io': 'not-obeyed', ...words });
  });

  test('on which nothing is written', () => {
    const { mirror, reason, upstreams } = nodeState(
      CONFIG,
      unconfigured(CONFIG, 'no config_path'),
      undefined,
    );
    assert.deepEqual(
      [mirror, reason, [...upstreams]],
      [
        'fallback',
        'unsupported: no config_path',
        [
          ['docker.io', 'unsupported'],
          ['ghcr.io', 'unsupported'],
        ],
      ],
    );
  });
});
