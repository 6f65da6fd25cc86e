// Whatever befalls the agent or its files, a real containerd pulls: through the mirror where a whole file of ours
// names it, from the upstream where none does, and from the upstream everywhere while the mirror is away.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { lstat, mkdir, open, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { arch } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, before, beforeEach, describe, it, type TestContext } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { pino } from 'pino';
import { CertsDirectories } from '../../agent/certs-directories.ts';
import { Cri } from '../../agent/cri.ts';
import type { Outcome } from '../../agent/runtime-files.ts';
import { parseConfig } from '../../config/parse.ts';
import { isLeftover } from '../../process/durable-file.ts';
import { codeOf } from '../../process/file-problem.ts';
import { cutBefore } from '../agent/cut-power.ts';
import { makeIdentity } from '../support/certificates.ts';
import { type Child, start } from '../tools/child.ts';
import { run } from '../tools/command.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type Containerd, startContainerd, type Version, versions } from './containerd.ts';
import { makeImage, seeded } from './image.ts';
import { freePort } from './port.ts';
import { missing, missingVersions } from './tier.ts';
import { startUpstream, type Upstream } from './upstream.ts';

// That a version cannot be tried here is told, and fails in CI, in pull.test.ts.
const impossible = await missing();
const lacking = await missingVersions();
const runnable = impossible === undefined ? versions.filter((version) => !lacking.has(version)) : [];

const main = join(import.meta.dirname, '..', '..', 'cli', 'main.ts');
const log = pino({ level: 'silent' });
const PATIENCE_MS = 30_000;
const PAGE = 4096;
const NAMES = ['localhost', 'trusted.test', 'defaulted.test'];

// On the node, in containerd's own memory: everything else is read-only to it.
const home = '/run/weir/node';
const certs = `${home}/certs.d`;
const stateDir = `${home}/state`;
const DEFAULTS = ['/etc/containerd/certs.d', '/etc/containerd/certs.d:/etc/docker/certs.d'];
/** Without a host in it, 2.3 takes a file for a whole one, and looks at no certificate beside it. */
const SILENT = 'cut short in its first line';
const DAMAGES: Readonly<Record<string, (text: string) => string>> = {
  empty: () => '',
  [SILENT]: (text) => text.slice(0, 40),
  'cut short in its last line': (text) => text.slice(0, text.lastIndexOf('"')),
  'a run of zero bytes': (text) => '\0'.repeat(text.length),
  'followed by rubbish': (text) => `${text}\0[[[`,
};
const NO_PATH: Readonly<Record<Version, 'none' | 'list'>> = { '1.6': 'none', '1.7': 'none', '2.3': 'list' };

describe('containerd pulls whatever befell the files', { skip: runnable.length === 0 }, () => {
  let scratch: string;
  let upstream: Upstream;
  let front: Front;
  let registry: Child;
  let line: Line;
  let images: ReadonlyMap<string, Pushed>;
  /** Registry hosts: one that has a hosts.toml of the user's, … */
  let own: string;
  /** … one whose directory has the authority without which it cannot be asked, … */
  let trusted: string;
  /** … one that has nothing, … */
  let bare: string;
  /** … and one that cannot be asked without the authority in the user's `_default`, where there is one. */
  let defaulted: string;

  before(async () => {
    scratch = await makeScratch();
    upstream = await startUpstream('upstream', scratch);
    const port = Number(new URL(upstream.endpoint).port);
    front = await startFront(scratch, port);
    [own, bare] = [`127.0.0.1:${port}`, `localhost:${port}`];
    [trusted, defaulted] = [`trusted.test:${front.port}`, `defaulted.test:${front.port}`];
    const hosts = [own, trusted, bare, defaulted];
    images = await pushImages(upstream, hosts);
    const registryPort = await freePort();
    registry = await startRegistry(scratch, JSON.stringify(configuration(hosts)), registryPort);
    line = await openLine(registryPort);
  });

  after(async () => {
    await line.close();
    await registry.stop('SIGKILL');
    front.close();
    await upstream.down();
    await removeScratch(scratch);
  });

  function configuration(hosts: readonly string[]): object {
    const upstreams: Record<string, object> = {};
    for (const host of hosts)
      upstreams[host] = [trusted, defaulted].includes(host)
        ? { endpoint: front.endpoint, ca: 'ca.pem' }
        : { endpoint: upstream.endpoint };
    return { upstreams };
  }

  /** What the user has, by path below the certificates directory. */
  function usersFiles(): Readonly<Record<string, string>> {
    const toml = `# by hand\nserver = "http://${own}"\n[host."http://${bare}"]\n  capabilities = ["pull", "resolve"]\n`;
    return { [`${own}/hosts.toml`]: toml, [`${trusted}/ca.crt`]: front.ca };
  }

  const three = (): readonly string[] => [own, trusted, bare];

  for (const version of runnable)
    describe(`containerd ${version}`, () => {
      let node: Node;

      before(async () => {
        node = await startNode(version, { scratch, images, line });
      });
      after(() => node.stop());
      beforeEach(() => node.reset(usersFiles()));

      const apply = (hosts: readonly string[], mirror = line.url): Promise<Outcome> =>
        node.files.apply({ config: parseConfig(JSON.stringify(configuration(hosts))).config, mirror });

      /**
       * Through the mirror where a file names it, and without it while it is away.
       *
       * @returns the hosts for which the mirror was asked.
       */
      async function assertPulls(
        hosts: readonly string[],
        { alsoWithout = true, unread = [] }: { alsoWithout?: boolean; unread?: readonly string[] } = {},
      ): Promise<readonly string[]> {
        const texts = await node.hostsFiles();
        const named = hosts.filter((host) => line.isNamedIn(texts.get(host) ?? ''));
        const through = await node.pull(hosts);
        assert.deepEqual(
          through,
          named.filter((host) => !unread.includes(host)),
        );
        if (alsoWithout) await line.whileClosed(async () => assert.deepEqual(await node.pull(hosts), []));
        return through;
      }

      /** Kills the agent before its n-th operation that changes the disk, for every n (on older versions, for some). */
      async function everyCut(
        t: TestContext,
        user: Readonly<Record<string, string>>,
        prepare: () => Promise<unknown>,
        act: () => Promise<unknown>,
        hosts: readonly string[],
        step = version === '2.3' ? 1 : 3,
      ): Promise<void> {
        const [whole, left] = [new Set<string>(), new Set<string>()];
        const cuts: number[] = [];
        let last = '';
        for (let count = 0, isCut = true; isCut; count += step) {
          await node.reset(user);
          await prepare();
          for (const text of (await node.hostsFiles()).values()) whole.add(text);
          isCut = await cutBefore(t, count, act);
          for (const text of (await node.hostsFiles()).values()) (isCut ? left : whole).add(text);
          if (isCut) cuts.push(count);
          const read = Object.entries(await node.tree()).filter(([name]) => !isLeftover(basename(name)));
          const tree = JSON.stringify(read);
          const isNew = tree !== last;
          last = tree;
          // What differs in nothing that containerd reads is tried with one host.
          const some = hosts.filter((_, index) => isNew || index === cuts.length % hosts.length);
          await assertPulls(some, { alsoWithout: isNew });
        }
        assert.deepEqual(left.difference(whole), new Set(), 'every file is the one before or the one after');
        t.diagnostic(`${cuts.length} cuts, the last before operation ${cuts.at(-1)}`);
        assert.ok((cuts.at(-1) ?? 0) > 7, `${cuts.at(-1)} operations`);
      }

      it('with what an agent left that was killed at any point of its first run', async (t) => {
        await everyCut(
          t,
          usersFiles(),
          async () => {},
          () => apply(three()),
          three(),
        );
        assert.deepEqual(await node.pull(three()), three());
        await node.assertContent(three());
      });

      it('with what an agent left that was killed at any point of a change', async (t) => {
        await everyCut(
          t,
          usersFiles(),
          () => apply([own, trusted]),
          () => apply([trusted, bare], line.otherUrl),
          three(),
        );
        assert.deepEqual(await node.pull(three()), [trusted, bare]);
        await node.assertContent(three());
      });

      it('with what a rollback left that was killed at any point', async (t) => {
        await everyCut(
          t,
          usersFiles(),
          () => apply(three()),
          () => node.files.restore(),
          three(),
        );
        assert.deepEqual(await node.pull(three()), []);
        await node.assertContent(three());
      });

      it("with what an agent left beside the user's _default that was killed", async (t) => {
        await everyCut(
          t,
          { '_default/ca.crt': front.ca },
          async () => {},
          () => apply([defaulted]),
          [defaulted],
          1,
        );
      });

      it("with what a rollback left beside the user's _default that was killed", async (t) => {
        await everyCut(
          t,
          { '_default/ca.crt': front.ca },
          () => apply([defaulted]),
          () => node.files.restore(),
          [defaulted],
          1,
        );
      });

      it("beside the user's _default on a full disk", async () => {
        await node.withVolume(certs, async (volume) => {
          await node.put({ '_default/ca.crt': front.ca });
          await volume.fill(0);
          assert.equal((await apply([defaulted])).failures.length, 1);
          await assertPulls([defaulted]);
        });
      });

      for (const [name, directory] of Object.entries({
        'the certificates': certs,
        'all of the agent': home,
      })) {
        it(`on a full disk of ${name}, and through the mirror when there is room`, async (t) => {
          await node.withVolume(directory, async (volume) => {
            const [whole, left] = [new Set<string>(), new Set<string>()];
            await node.put(usersFiles());
            const user = await node.tree();
            let free = 0;
            for (let failed = 3; failed > 0; free += 1) {
              await volume.clear();
              await node.put(usersFiles());
              for (const text of (await node.hostsFiles()).values()) whole.add(text);
              await volume.fill(free);
              const { failures } = await apply(three());
              failed = failures.length;
              assertNamed(failures, /\.(?:toml|json): ENOSPC: .*\. Free some space on that file system\.$/);
              for (const text of (await node.hostsFiles()).values()) left.add(text);
              assert.deepEqual(leftovers(await node.tree()), []);
              await assertPulls(three());
              await volume.empty();
              assert.deepEqual((await apply(three())).failures, []);
              for (const text of (await node.hostsFiles()).values()) whole.add(text);
              assert.deepEqual(await node.pull(three()), three());
            }
            assert.deepEqual(
              left.difference(whole),
              new Set(),
              'every file is the one before or the one after',
            );
            t.diagnostic(`enough with ${free - 1} pages`);
            assert.ok(free > 2);

            await volume.fill(0);
            const before = await node.tree();
            assertNamed((await apply([trusted, bare], line.otherUrl)).failures, /: ENOSPC: /);
            assert.deepEqual(await node.tree(), before);
            assert.deepEqual(await node.pull(three()), three());
            await assert.rejects(
              node.files.restore(),
              /cannot write \S+hosts\.toml: ENOSPC: .*\. Free some space/,
            );
            await assertPulls(three());
            await volume.empty();
            await node.files.restore();
            assert.deepEqual(await node.tree(), user);
            await assertPulls(three());
          });
        });

        it(`with ${name} on a read-only file system, and through the mirror when it is not`, async () => {
          await node.withVolume(directory, async (volume) => {
            await node.put(usersFiles());
            const user = await node.tree();
            await volume.remount('ro');
            const { failures } = await apply(three());
            assert.equal(failures.length, 3);
            assertNamed(
              failures,
              /: EROFS: .*\. Mount the file system writable, or name another directory\.$/,
            );
            assert.deepEqual(await node.tree(), user);
            await assertPulls(three());
            await volume.remount('rw');
            assert.deepEqual((await apply(three())).failures, []);
            const done = await node.tree();
            assert.deepEqual(await node.pull(three()), three());

            await volume.remount('ro');
            assertNamed((await apply([trusted, bare], line.otherUrl)).failures, /: EROFS: /);
            await assert.rejects(node.files.restore(), /cannot \w+ \S+: EROFS: .*\. Mount the file system/);
            assert.deepEqual(await node.tree(), done);
            assert.deepEqual(await assertPulls(three()), three());
            await volume.remount('rw');
            await node.files.restore();
            assert.deepEqual(await node.tree(), user);
            await assertPulls(three());
          });
        });
      }

      it('with a file of ours that somebody edited, or took the mirror out of', async () => {
        await apply(three());
        const text = (await node.hostsFiles()).get(own) ?? '';
        await node.put({ [`${own}/hosts.toml`]: `${text}# edited\n` });
        assert.equal((await apply(three())).states.get(own)?.kind, 'overridden');
        assert.deepEqual(await assertPulls(three()), three());
        const [marker = ''] = text.split('\n');
        await node.put({ [`${own}/hosts.toml`]: `${marker}\n${usersFiles()[`${own}/hosts.toml`]}` });
        assert.equal((await apply(three())).states.get(own)?.kind, 'overridden');
        assert.deepEqual(await assertPulls(three()), [trusted, bare]);
      });

      it("with a broken file of the user's, which stays", async () => {
        await node.put({ [`${own}/hosts.toml`]: 'server = "http', [`${trusted}/hosts.toml`]: '[host' });
        await assertPulls(three());
        const before = await node.tree();
        const { states } = await apply(three());
        assert.deepEqual(
          three().map((host) => states.get(host)?.kind),
          ['unparsable', 'unparsable', 'configured'],
        );
        assert.deepEqual(await assertPulls(three()), [bare]);
        await node.files.restore();
        assert.deepEqual(await node.tree(), before);
        await assertPulls(three());
      });

      for (const [name, damage] of Object.entries(DAMAGES))
        it(`with a file of ours that is ${name}, and through the mirror when it is healed`, async () => {
          await apply(three());
          const done = await node.tree();
          const broken = [own, trusted];
          const texts = await node.hostsFiles();
          await node.put(
            Object.fromEntries(broken.map((host) => [`${host}/hosts.toml`, damage(texts.get(host) ?? '')])),
          );
          const isSilent = version === '2.3' && name === SILENT;
          if (isSilent) await assert.rejects(node.pull([trusted]), /certificate signed by unknown authority/);
          await assertPulls(isSilent ? [own, bare] : three(), { unread: broken });
          assert.deepEqual(
            (await apply(three())).changes.map(({ host, kind }) => `${kind} ${host}`),
            broken.map((host) => `healed ${host}`),
          );
          assert.deepEqual(await node.tree(), done);
          assert.deepEqual(await node.pull(three()), three());
        });

      it('with a link in place of a file that leads nowhere, and is there again after a rollback', async () => {
        await node.put({
          [`${own}/hosts.toml`]: '-> ../absent.toml',
          [`${trusted}/hosts.toml`]: '-> absent',
        });
        await assertPulls(three());
        const before = await node.tree();
        assert.deepEqual((await apply(three())).failures, []);
        assert.deepEqual(await assertPulls(three()), three());
        await node.files.restore();
        assert.deepEqual(await node.tree(), before);
        await assertPulls(three());
      });

      it('with a directory in place of a file, for which containerd itself refuses that host alone', async () => {
        await node.reset({ [`${own}/hosts.toml/file`]: '' });
        await assert.rejects(node.pull([own]), /hosts\.toml: is a directory/);
        const { failures, states } = await apply([own, bare]);
        assert.match(failures.join(), /hosts\.toml is no regular file\. Move it away\./);
        assert.equal(states.get(own)?.kind, 'failed');
        assert.deepEqual(await node.pull([bare]), [bare]);
        await assert.rejects(node.pull([own]), /hosts\.toml: is a directory/);
        await node.reset({});
        assert.deepEqual((await apply([own, bare])).failures, []);
        assert.deepEqual(await node.pull([own, bare]), [own, bare]);
      });

      const isList = NO_PATH[version] === 'list';
      const where = isList ? 'through the mirror, by both directories of its default' : 'past the mirror';
      it(`without a config_path, ${where}`, async () => {
        const plain = [own, bare];
        const other = await startNode(version, { scratch, images, line, certsDirs: DEFAULTS, registry: '' });
        try {
          await other.put({ [`${own}/hosts.toml`]: usersFiles()[`${own}/hosts.toml`] ?? '' });
          const before = await other.tree();
          assert.deepEqual(await other.pull(plain), []);
          const { config } = parseConfig(JSON.stringify(configuration(plain)));
          assert.deepEqual((await other.files.apply({ config, mirror: line.url })).failures, []);
          assert.deepEqual([...(await other.hostsFiles()).keys()], plain.toSorted());
          assert.deepEqual(await other.pull(plain), isList ? plain : []);
          await other.assertContent(plain);
          await line.whileClosed(async () => assert.deepEqual(await other.pull(plain), []));
          await other.files.restore();
          assert.deepEqual(await other.tree(), before);
          assert.deepEqual(await other.pull(plain), []);
        } finally {
          await other.stop();
        }
      });
    });
});

function assertNamed(failures: readonly Error[], pattern: RegExp): void {
  for (const { message } of failures) {
    assert.match(message, /^\S+: cannot [a-z ]+ \/\S+: /);
    assert.match(message, pattern);
  }
}

function leftovers(tree: Readonly<Record<string, string>>): readonly string[] {
  return Object.keys(tree).filter((name) => isLeftover(basename(name)));
}

interface Pushed {
  readonly reference: string;
  readonly id: string;
  readonly files: ReadonlyMap<string, string>;
}

/** A containerd and the files by which it is told of registry hosts, as an agent beside it sees them. */
interface Node {
  readonly files: CertsDirectories;
  /** Takes away whatever was there, and puts the user's files there. */
  reset(user: Readonly<Record<string, string>>): Promise<void>;
  put(files: Readonly<Record<string, string>>): Promise<void>;
  /** By registry host; broken ones as they are. */
  hostsFiles(): Promise<ReadonlyMap<string, string>>;
  /** Everything below a directory. */
  tree(): Promise<Readonly<Record<string, string>>>;
  /** Pulls the image of each host anew. @returns the hosts for which the mirror was asked. */
  pull(hosts: readonly string[]): Promise<readonly string[]>;
  assertContent(hosts: readonly string[]): Promise<void>;
  /** With a small file system at this path, which goes again. */
  withVolume(path: string, use: (volume: Volume) => Promise<void>): Promise<void>;
  stop(): Promise<void>;
}

interface Volume {
  /** Leaves so many pages of it. */
  fill(free: number): Promise<void>;
  /** Takes away what filled it. */
  empty(): Promise<void>;
  /** Takes away everything, and what an agent remembers of it. */
  clear(): Promise<void>;
  remount(how: 'ro' | 'rw'): Promise<void>;
}

interface NodeParts {
  readonly scratch: string;
  readonly images: ReadonlyMap<string, Pushed>;
  readonly line: Line;
  readonly certsDirs?: readonly string[];
  readonly registry?: string;
}

async function startNode(
  version: Version,
  { scratch, images, line, certsDirs = [certs], registry }: NodeParts,
): Promise<Node> {
  const directory = join(scratch, `${version}-${certsDirs.length}`);
  await mkdir(directory);
  const containerd: Containerd = await startContainerd(version, certs, directory, registry);
  const { root } = containerd;
  const [, pid = ''] = /^\/proc\/(\d+)\/root$/.exec(root) ?? [];
  const inside = (script: string): Promise<string> =>
    run('nsenter', ['--mount', `--target=${pid}`, 'sh', '-ec', script]);
  await inside(`mkdir /run/weir/etc /run/weir/etc-work
    mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/weir/etc,workdir=/run/weir/etc-work /etc`);
  await writeFile(join(root, '/etc/hosts'), `127.0.0.1 ${NAMES.join(' ')}\n`);
  const cri = await Cri.connect(containerd);
  const [first] = certsDirs;
  assert.ok(first !== undefined);
  const path = (name: string): string => join(root, first, name);
  const imageOf = (host: string): Pushed => images.get(host) ?? assert.fail(host);

  const node: Node = {
    files: new CertsDirectories({ root, stateDir, log }, certsDirs),
    async reset(user) {
      await rm(join(root, home), { recursive: true, force: true });
      await mkdir(join(root, home));
      await node.put(user);
    },
    async put(files) {
      for (const [name, text] of Object.entries(files)) {
        await mkdir(dirname(path(name)), { recursive: true });
        await rm(path(name), { force: true });
        if (text.startsWith('-> ')) await symlink(text.slice(3), path(name));
        else await writeFile(path(name), text);
      }
    },
    async hostsFiles() {
      const texts = new Map<string, string>();
      for (const host of await namesIn(path(''))) {
        const text = await readFile(path(join(host, 'hosts.toml')), 'utf8').catch(orAbsent);
        if (text !== undefined) texts.set(host, text);
      }
      return texts;
    },
    async tree() {
      const entries: [string, string][] = [];
      const names = await readdir(path(''), { recursive: true });
      for (const name of names.toSorted()) {
        const found = await lstat(path(name));
        if (found.isFile()) entries.push([name, await readFile(path(name), 'utf8')]);
        else entries.push([name, found.isSymbolicLink() ? `-> ${await readlink(path(name))}` : '']);
      }
      return Object.fromEntries(entries);
    },
    async pull(hosts) {
      line.asked.clear();
      const pulls = hosts.map(async (host) => {
        const { reference, id } = imageOf(host);
        assert.equal(await cri.pull(reference, { timeout: PATIENCE_MS }), id);
      });
      await Promise.all(pulls);
      for (const host of hosts) await cri.remove(imageOf(host).reference);
      return hosts.filter((host) => line.asked.has(host));
    },
    async assertContent(hosts) {
      assert.deepEqual(await containerd.holdings(), [], 'what was pulled and removed is gone');
      for (const host of hosts) {
        const { reference, files } = imageOf(host);
        await containerd.pull(reference);
        assert.deepEqual(await containerd.files(reference), files);
        await cri.remove(reference);
      }
    },
    async withVolume(directory, use) {
      await inside(`mkdir -p ${directory} && mount -t tmpfs -o size=64k tmpfs ${directory}`);
      const filler = join(root, directory, 'filler');
      try {
        await use({
          fill: (free) => fill(filler, free),
          empty: () => rm(filler),
          clear: async () => {
            await rm(join(root, stateDir), { recursive: true, force: true });
            for (const name of await namesIn(join(root, directory)))
              await rm(join(root, directory, name), { recursive: true });
          },
          remount: async (how) => {
            await inside(`mount -o remount,${how} ${directory}`);
          },
        });
      } finally {
        await inside(`umount ${directory}`);
      }
    },
    async stop() {
      cri.close();
      await containerd.stop();
    },
  };
  await untilReady(containerd, imageOf([...images.keys()][0] ?? ''));
  return node;
}

/** The socket of containerd 1.x answers a moment before CRI itself can, for which this way of pulling waits. */
async function untilReady(containerd: Containerd, { reference }: Pushed): Promise<void> {
  await containerd.pull(reference);
  await containerd.removeImages();
}

async function fill(file: string, free: number): Promise<void> {
  const handle = await open(file, 'w');
  try {
    for (let pages = 0; ; pages += 1)
      try {
        await handle.write(Buffer.alloc(PAGE));
      } catch (error) {
        if (codeOf(error) !== 'ENOSPC') throw error;
        await handle.truncate(Math.max(0, pages - free) * PAGE);
        return;
      }
  } finally {
    await handle.close();
  }
}

function orAbsent(error: unknown): undefined {
  if (['ENOENT', 'ENOTDIR', 'EISDIR'].includes(codeOf(error) ?? '')) return;
  throw error;
}

async function namesIn(directory: string): Promise<readonly string[]> {
  return (await readdir(directory).catch(orAbsent)) ?? [];
}

async function pushImages(
  upstream: Upstream,
  hosts: readonly string[],
): Promise<ReadonlyMap<string, Pushed>> {
  const architecture = arch() === 'x64' ? 'amd64' : arch();
  const pushed = new Map<string, Pushed>();
  for (const [index, host] of hosts.entries()) {
    const content = seeded(`faults ${index}`, 20_000);
    const image = await makeImage('oci', architecture, [[{ kind: 'file', path: 'content', content }]]);
    await upstream.push(`acme/image${index}`, '1', image);
    const [config] = image.blobs;
    assert.ok(config !== undefined);
    pushed.set(host, {
      reference: `${host}/acme/image${index}:1`,
      id: config.digest,
      files: image.files,
    });
  }
  return pushed;
}

async function startRegistry(scratch: string, configuration: string, port: number): Promise<Child> {
  const config = join(scratch, 'config.json');
  await writeFile(config, configuration);
  const store = `file:${join(scratch, 'store')}`;
  const args = ['--config', config, '--ca-dir', scratch, '--store', store, '--listen', `127.0.0.1:${port}`];
  return start(process.execPath, [main, 'registry', ...args], {
    ready: (child) => child.line(/the registry answers/),
  });
}

/** The upstream over TLS. */
interface Front {
  readonly endpoint: string;
  readonly port: number;
  /** The authority that vouches for it, and that nobody knows by himself. */
  readonly ca: string;
  close(): void;
}

async function startFront(scratch: string, port: number): Promise<Front> {
  const names = ['IP:127.0.0.1', ...NAMES.map((name) => `DNS:${name}`)];
  const identity = await makeIdentity(scratch, names);
  const sockets = new Set<Socket>();
  const server = createTlsServer(identity, (client) => pass(sockets, client, connect(port, '127.0.0.1')));
  server.on('tlsClientError', () => undefined);
  const own = await freePort();
  server.listen(own, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: `https://127.0.0.1:${own}`,
    port: own,
    ca: identity.ca,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** The way to the mirror, which refuses connections while it is closed. */
interface Line {
  readonly url: string;
  readonly otherUrl: string;
  isNamedIn(hostsFile: string): boolean;
  /** The registry hosts of whose images the mirror was asked. */
  readonly asked: Set<string>;
  whileClosed(act: () => Promise<void>): Promise<void>;
  close(): Promise<void>;
}

async function openLine(registryPort: number): Promise<Line> {
  const sockets = new Set<Socket>();
  const asked = new Set<string>();
  const server = createServer((client) => {
    client.on('data', (chunk) => {
      for (const [, host = ''] of chunk.toString('latin1').matchAll(/[?&]ns=([^ &]+)/g))
        asked.add(decodeURIComponent(host));
    });
    pass(sockets, client, connect(registryPort, '127.0.0.1'));
  });
  const port = await freePort();
  const open = async (): Promise<void> => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  const close = async (): Promise<void> => {
    server.close();
    for (const socket of sockets) socket.destroy();
    await once(server, 'close');
  };
  await open();
  return {
    url: `http://127.0.0.1:${port}`,
    otherUrl: `http://localhost:${port}`,
    isNamedIn: (text) => text.includes(`:${port}"]`),
    asked,
    close,
    async whileClosed(act) {
      await close();
      try {
        await act();
      } finally {
        await open();
      }
    },
  };
}

function pass(sockets: Set<Socket>, one: Socket, other: Socket): void {
  for (const socket of [one, other]) {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      sockets.delete(socket);
      one.destroy();
      other.destroy();
    });
  }
  one.pipe(other);
  other.pipe(one);
}
