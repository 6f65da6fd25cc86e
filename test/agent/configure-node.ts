// A node whose runtime a test stands for: it reads its file when it is restarted, and does not start with some.

import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { type Configured, type ConfigureOptions, configureRuntime } from '../../agent/configure/configure.ts';
import type { Restarter } from '../../agent/configure/restarter.ts';
import { restoreRuntimeConfiguration } from '../../agent/configure/restore.ts';
import { setString } from '../../agent/configure/toml-edit.ts';
import { parseToml } from '../../agent/hosts-file.ts';
import type { NodeSight } from '../../agent/runtimes/node-sight.ts';
import { valueAt } from '../../agent/runtimes/toml-line.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

export const CONFIG = '/etc/containerd/config.toml';
export const STATE = '/var/lib/weir';
export const JOURNAL = `${STATE}/runtime-configuration/journal.json`;
export const CERTS = '/etc/containerd/certs.d';
export const PATH_KEYS = ['plugins', 'io.containerd.grpc.v1.cri', 'registry', 'config_path'];
export const PLAIN = '# mine\nversion = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "x"\n';
export const EDITED = setString(PLAIN, PATH_KEYS, CERTS) ?? '';
const PID = 4711;

export interface TestNode {
  readonly root: string;
  /** How often it was restarted. */
  restarts: number;
  /** What it read at its last start; `undefined` when it does not run. */
  text: string | undefined;
  /** Why it would not start with this text. */
  refuse: (text: string) => string | undefined;
  /** What containerd says of its files, or why it does not: each time that it is asked. */
  dump: (text: string) => string;
  /** How often it was asked. */
  dumps: number;
  /** Before and after each restart. */
  onRestart: (when: 'before' | 'after') => void;
  running: string[];
  isByItself: boolean;
  /** Of turns: `taken`, `released`, `released later`, `abandoned`. */
  readonly turns: string[];
  lost: AbortSignal;
  sight: Partial<NodeSight>;
  read(path?: string): Promise<string | undefined>;
  write(path: string, text: string): Promise<void>;
  /** Every file below a directory, with its mode. */
  files(directory: string): Promise<Readonly<Record<string, string>>>;
  see(): Promise<NodeSight>;
  configure(options?: Partial<ConfigureOptions>): Promise<Configured>;
  restore(): Promise<string | undefined>;
  /** Every restart was the day before. */
  passDay(): Promise<void>;
}

const { signal } = new AbortController();
const log = pino({ level: 'silent' });

/** @param text of its configuration file; `null`: there is none. */
export async function makeTestNode(t: TestContext, text: string | null = PLAIN): Promise<TestNode> {
  const root = await makeScratch();
  t.after(() => removeScratch(root));
  await plantProcess(root);
  const at = (path: string): string => join(root, path);
  const node: TestNode = {
    root,
    restarts: 0,
    text: text ?? '',
    refuse: () => undefined,
    dump: dumpOf,
    dumps: 0,
    onRestart: () => undefined,
    running: ['a', 'b'],
    isByItself: false,
    turns: [],
    lost: signal,
    sight: {},
    read: (path = CONFIG) => readFile(at(path), 'utf8').catch(() => undefined),
    async write(path, content) {
      await mkdir(dirname(at(path)), { recursive: true });
      await writeFile(at(path), content);
    },
    async files(directory) {
      const names = await readdir(at(directory), { recursive: true }).catch(() => []);
      const entries: [string, string][] = [];
      for (const name of names) {
        const found = await stat(at(join(directory, name)));
        const content = found.isFile() ? await readFile(at(join(directory, name)), 'utf8') : 'directory';
        entries.push([name, `${(found.mode & 0o7777).toString(8)} ${content}`]);
      }
      return Object.fromEntries(entries);
    },
    see: () => sightOf(node),
    configure: async (options) => {
      const found = await sightOf(node);
      return configureRuntime({
        root,
        stateDir: STATE,
        version: '1.2.3',
        sight: found,
        takeTurn: () => Promise.resolve(turnOf(node)),
        findRestarter: () => Promise.resolve(restarterOf(node)),
        ask: () => Promise.resolve(answerOf(node)),
        askDump: async () => {
          node.dumps += 1;
          if (found.distribution.value === 'k0s') throw new Error('there is no bus');
          return node.dump((await node.read()) ?? 'version = 2\n');
        },
        healthMs: 1,
        quietMs: 1,
        log,
        signal,
        ...options,
      });
    },
    restore: () => restoreRuntimeConfiguration({ root, stateDir: STATE, log }),
    async passDay() {
      const text = (await node.read(JOURNAL)) ?? assert.fail('there is no journal');
      await node.write(JOURNAL, text.replaceAll(/"20\d\d-/g, '"2001-'));
    },
  };
  if (text !== null) {
    await node.write(CONFIG, text);
    await chmod(at(CONFIG), 0o640);
  }
  return node;
}

export function assertOutcome(outcome: Configured, kind: 'refused' | 'failed', reason: RegExp): void {
  assert.equal(outcome.kind, kind);
  assert.match('reason' in outcome ? outcome.reason : '', reason);
  assert.ok('remedy' in outcome && outcome.remedy.length > 10);
}

/** What there is in /proc of a containerd. */
export async function plantProcess(root: string, pid = PID, ...args: readonly string[]): Promise<void> {
  const directory = join(root, 'proc', String(pid));
  await mkdir(directory, { recursive: true });
  await writeFile(join(root, 'proc/stat'), 'btime 1700000000\n');
  await writeFile(
    join(directory, 'cmdline'),
    ['/usr/bin/containerd', ...args].map((arg) => `${arg}\0`).join(''),
  );
  await writeFile(join(directory, 'stat'), `${pid} (containerd) S ${'1 '.repeat(18)}100 0\n`);
  await writeFile(join(directory, 'status'), `NSpid:\t${pid}\n`);
}

/** As the node is seen: with no path where the file says none. */
async function sightOf(node: TestNode): Promise<NodeSight> {
  const text = await node.read();
  const path = text === undefined ? undefined : valueAt(parseToml(text), PATH_KEYS);
  const isMissing = path === undefined || path === '';
  return {
    distribution: { value: 'kubeadm', source: 'test' },
    runtime: { value: 'containerd', source: 'test' },
    version: { value: '1.7.24', source: 'test' },
    socket: { value: '/run/containerd/containerd.sock', source: 'test' },
    configFiles: text === undefined ? [] : [CONFIG],
    configPath: undefined,
    localPull: undefined,
    certsDirs: isMissing ? [] : [CERTS],
    laterDirs: [],
    ownedHosts: [],
    missingConfigPath: isMissing ? CERTS : undefined,
    verdict: isMissing
      ? { kind: 'fallback', reason: 'no config_path is set', remedy: 'Set it in the file.' }
      : { kind: 'configurable' },
    notes: [],
    ...node.sight,
  };
}

function restarterOf(node: TestNode): Restarter {
  const { isByItself } = node;
  return {
    name: 'test',
    isByItself,
    run: () => Promise.resolve(node.text === undefined ? undefined : `run ${node.restarts}`),
    async restart() {
      node.onRestart('before');
      node.restarts += 1;
      const text = (await node.read()) ?? '';
      const problem = node.refuse(text);
      node.text = problem === undefined ? text : undefined;
      node.onRestart('after');
      if (problem !== undefined) throw new Error(problem);
    },
  };
}

/** The file, and a default. */
export function dumpOf(text: string): string {
  return valueAt(parseToml(text), PATH_KEYS) === undefined ? (setString(text, PATH_KEYS, '') ?? text) : text;
}

function answerOf({ text, running }: TestNode) {
  if (text === undefined) throw new Error('nothing listens there');
  const configPath = valueAt(parseToml(text), PATH_KEYS);
  return { notReady: undefined, running, configPath: typeof configPath === 'string' ? configPath : '' };
}

function turnOf(node: TestNode) {
  node.turns.push('taken');
  let isOver = false;
  return {
    lost: node.lost,
    release: (afterMs = 0) => {
      if (!isOver) node.turns.push(afterMs > 0 ? 'released later' : 'released');
      isOver = true;
      return Promise.resolve();
    },
    abandon: () => {
      if (!isOver) node.turns.push('abandoned');
      isOver = true;
    },
  };
}
