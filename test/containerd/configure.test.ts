// weir sets config_path in the configuration of real containerds, which a real systemd restarts.

import assert from 'node:assert/strict';
import { chmod, chown, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { pino } from 'pino';
import { type Configured, configureRuntime, type TakeTurn } from '../../agent/configure/configure.ts';
import { findRestarter } from '../../agent/configure/restarter.ts';
import { restoreRuntimeConfiguration } from '../../agent/configure/restore.ts';
import { setString } from '../../agent/configure/toml-edit.ts';
import { askWorkload } from '../../agent/cri-workload.ts';
import { parseToml } from '../../agent/hosts-file.ts';
import { askCri } from '../../agent/runtimes/ask-cri.ts';
import type { NodeSight } from '../../agent/runtimes/node-sight.ts';
import { seeNode } from '../../agent/runtimes/see-node.ts';
import { valueAt } from '../../agent/runtimes/toml-line.ts';
import { provide } from '../tools/cache.ts';
import { start } from '../tools/child.ts';
import { run } from '../tools/command.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { recipe, type Version, versions } from './containerd.ts';
import { pushImages } from './pushed.ts';
import { configFile, missingSystemd, type SystemdNode, socket, startNode } from './systemd-node.ts';
import { missing, missingVersions } from './tier.ts';
import { startUpstream, type Upstream } from './upstream.ts';

// That a version cannot be tried here is told, and fails in CI, in pull.test.ts.
const impossible = await missing();
const lacking = await missingVersions();
const runnable = impossible === undefined ? versions.filter((version) => !lacking.has(version)) : [];
const noSystemd = await missingSystemd();

// In CI what was not tried must not look like what works.
if (noSystemd !== undefined)
  test('config_path is set', { skip: process.env['CI'] === 'true' ? false : noSystemd }, () => {
    assert.fail(noSystemd);
  });

const certs = '/etc/containerd/certs.d';
const stateDir = '/run/weir/weir-state';
const journal = `${stateDir}/runtime-configuration/journal.json`;
const wrapper = '/run/weir/bin/containerd';
const log = pino({ level: 'silent' });
const { signal } = new AbortController();

const CRI = {
  '1.6': 'io.containerd.grpc.v1.cri',
  '1.7': 'io.containerd.grpc.v1.cri',
  '2.3': 'io.containerd.cri.v1.images',
};

/** As an administrator left it, without a path. */
function configuration(version: Version, registry = ''): string {
  return `# The configuration of this node.
version = ${version === '2.3' ? 3 : 2}
root = "/run/weir/root"
state = "/run/weir/state"

[plugins."io.containerd.internal.v1.opt"]
path = "/run/weir/opt"

[plugins."${CRI[version]}"]
  stats_collect_period = 11 # seconds
${registry}
[metrics]
  grpc_histogram = false
`;
}

const ADDED = (version: Version): string => `
[plugins."${CRI[version]}".registry]
  config_path = "${certs}"
`;

/** Ways to write a configuration, in which PLUGIN is the plugin's name. */
const SHAPES: Readonly<Record<string, string>> = {
  'the plugin has a table': '[plugins.PLUGIN]\n  stats_collect_period = 11\n\n[plugins.PLUGIN.other]\n',
  'there are plugins': '[plugins]\n  [plugins."io.containerd.internal.v1.opt"]\n    path = "/run/x"\n',
  'the registry has a table': "[plugins.'PLUGIN'.registry]\n\n[metrics]\n",
  'the registry is inline': '[plugins.PLUGIN]\n  registry = { headers = { a = ["b"] } }\n',
  'the registry is inline and empty': '[plugins.PLUGIN]\n  registry = {}\n',
  'the registry has keys with dots': '[plugins.PLUGIN]\n  registry.headers.a = ["b"]\n',
  'the registry has tables below it': '    [plugins.PLUGIN.registry.headers]\n      a = ["b"]\n',
  'the plugin is inline': '[plugins]\n  PLUGIN = { stats_collect_period = 11 }\n',
  'the plugin has keys with dots': 'plugins.PLUGIN.stats_collect_period = 11\n',
  'an empty path': 'plugins.PLUGIN.registry.config_path = ""\n',
  'lines that end as elsewhere': '[plugins.PLUGIN.registry]\r\n  # none\r\n  config_path = ""\r\n',
};

describe('an edited configuration is to containerd what it was, with a path', {
  skip: runnable.length === 0,
}, () => {
  let scratch: string;
  before(async () => {
    scratch = await makeScratch();
  });
  after(() => removeScratch(scratch));

  for (const version of runnable)
    for (const [name, shape] of Object.entries(SHAPES))
      it(`containerd ${version}: ${name}`, async () => {
        const quoted = shape.replaceAll(/'?PLUGIN'?/g, (found) =>
          found.startsWith("'") ? `'${CRI[version]}'` : `"${CRI[version]}"`,
        );
        const text = `version = ${version === '2.3' ? 3 : 2}\n${quoted}`;
        const file = join(scratch, `${version}.toml`);
        const containerd = join(await provide(recipe(version)), 'containerd');
        const dump = async (now: string): Promise<string> => {
          await writeFile(file, now);
          return run(containerd, ['--config', file, 'config', 'dump']);
        };
        const edited = setString(text, ['plugins', CRI[version], 'registry', 'config_path'], certs);
        assert.ok(edited !== undefined);
        assertOnlyPath(version, await dump(text), await dump(edited));
      });
});

describe('config_path of a real containerd', { skip: runnable.length === 0 || noSystemd }, () => {
  let scratch: string;
  let upstream: Upstream;
  let reference: string;

  before(async () => {
    scratch = await makeScratch();
    upstream = await startUpstream('upstream', scratch);
    const [, , base] = await pushImages(upstream, upstream);
    assert.ok(base !== undefined);
    // Nobody has a name below `invalid`: it comes from where the hosts file says, or not at all.
    reference = base.reference.replace('ghcr.io', 'mirror.invalid');
  });
  after(async () => {
    await upstream.down();
    await removeScratch(scratch);
  });

  for (const version of runnable)
    describe(`containerd ${version}`, () => {
      async function withNode(
        text: string | undefined,
        use: (node: SystemdNode) => Promise<void>,
        killMode?: string,
      ): Promise<void> {
        const node = await startNode(version, scratch, text, killMode);
        try {
          await use(node);
        } finally {
          await node.stop();
        }
      }

      it('is set, and pulls go by it; nothing else changes, and all of it goes again', async () => {
        const text = configuration(version);
        await withNode(text, async (node) => {
          const file = join(node.root, configFile);
          await chmod(file, 0o640);
          await chown(file, 7, 8);
          const hosts = join(node.root, certs, 'mirror.invalid/hosts.toml');
          await mkdir(dirname(hosts), { recursive: true });
          await writeFile(hosts, `[host."${upstream.endpoint}"]\n  capabilities = ["pull", "resolve"]\n`);
          await assert.rejects(node.pull(reference));
          const [dump, run] = [await node.dump(), await node.run()];

          assert.deepEqual(await configure(node), { kind: 'configured' });
          const expected = text.replace('# seconds\n', `# seconds\n${ADDED(version)}`);
          assert.equal(await readFile(file, 'utf8'), expected);
          assert.notEqual(await node.run(), run);
          assertOnlyPath(version, dump, await node.dump());
          await node.pull(reference);

          const again = await node.run();
          assert.deepEqual(await configure(node, { sight: await see(node) }), { kind: 'unneeded' });
          assert.equal(await restoreRuntimeConfiguration({ root: node.root, stateDir, log }), 'as it was');
          assert.equal(await readFile(file, 'utf8'), text);
          const { mode, uid, gid } = await stat(file);
          assert.deepEqual([mode & 0o7777, uid, gid], [0o640, 7, 8]);
          assert.equal(await restoreRuntimeConfiguration({ root: node.root, stateDir, log }), undefined);
          assert.deepEqual(await readdir(join(node.root, stateDir)), []);
          assert.equal(await node.run(), again);
        });
      });

      it('is set where an empty one is, and in the file that has it', async () => {
        const text = configuration(
          version,
          `  [plugins."${CRI[version]}".registry]\n    config_path = '' # none\n`,
        );
        const main = `version = ${version === '2.3' ? 3 : 2}\nimports = ["/etc/containerd/more.toml"]\n`;
        await withNode(text, async (node) => {
          await writeFile(join(node.root, '/etc/containerd/more.toml'), text);
          await writeFile(join(node.root, configFile), main);
          const dump = await node.dump();
          assert.deepEqual(await configure(node), { kind: 'configured' });
          assert.equal(await readFile(join(node.root, configFile), 'utf8'), main);
          assert.equal(
            await readFile(join(node.root, '/etc/containerd/more.toml'), 'utf8'),
            text.replace("''", `'${certs}'`),
          );
          assertOnlyPath(version, dump, await node.dump());
        });
      });

      it('is set in a file of our own where such files are merged', { skip: version !== '2.3' }, async () => {
        const text = configuration(version).replace(
          '\nroot',
          '\nimports = ["/etc/containerd/conf.d/*.toml"]\nroot',
        );
        await withNode(text, async (node) => {
          const dump = await node.dump();
          assert.deepEqual(await configure(node), { kind: 'configured' });
          assert.equal(await readFile(join(node.root, configFile), 'utf8'), text);
          const directory = join(node.root, '/etc/containerd/conf.d');
          assert.deepEqual(await readdir(directory), ['weir.toml']);
          assertOnlyPath(version, dump, await node.dump());
          assert.equal(await restoreRuntimeConfiguration({ root: node.root, stateDir, log }), 'as it was');
          await assert.rejects(readdir(directory), { code: 'ENOENT' });
        });
      });

      it('is set where there was no file, which goes again', { skip: version === '2.3' }, async () => {
        // What it keeps is then where it is always, which is read-only but for this.
        await withNode(configuration(version), async (node) => {
          const script =
            'mkdir -p /run/weir/lib && mount -t tmpfs tmpfs /var/lib && rm $0 && systemctl restart containerd';
          await node.inside('sh', '-c', script, configFile);
          assert.deepEqual(await configure(node), { kind: 'configured' });
          const section = `[plugins."${CRI[version]}".registry]\n  config_path = "${certs}"\n`;
          assert.equal(await readFile(join(node.root, configFile), 'utf8'), `version = 2\n\n${section}`);
          assert.equal(await restoreRuntimeConfiguration({ root: node.root, stateDir, log }), 'as it was');
          await assert.rejects(stat(join(node.root, configFile)), { code: 'ENOENT' });
        });
      });

      it('is taken back where containerd does not start with it, and not tried again', async () => {
        const text = configuration(version);
        await withNode(text, async (node) => {
          await refuseToStart(node, certs);
          const outcome = await configure(node);
          assert.equal(outcome.kind, 'failed');
          assert.match(
            'reason' in outcome ? outcome.reason : '',
            /^containerd\.service is (?:failed|activating) after/,
          );
          assert.equal(await readFile(join(node.root, configFile), 'utf8'), text);
          assert.equal(
            (await askWorkload({ root: node.root, socket }, { timeout: 5_000 })).notReady,
            undefined,
          );

          const run = await node.run();
          const again = await configure(node);
          assert.match(
            'reason' in again ? again.reason : '',
            /^this was tried with the same files before, and failed/,
          );
          assert.equal(again.kind, 'failed');
          assert.equal(await node.run(), run);

          await rm(join(node.root, '/run/systemd/system/containerd.service.d'), { recursive: true });
          await node.inside('systemctl', 'daemon-reload');
          await rm(join(node.root, journal));
          assert.deepEqual(await configure(node), { kind: 'configured' });
        });
      });

      it('is asked for what it reads, by systemd, before the edit and after, and nothing of that stays', async () => {
        await withNode(configuration(version), async (node) => {
          await wrap(node, version);
          assert.deepEqual(await configure(node), { kind: 'configured' });
          // Before it has to wait for its turn, in it, and once it is edited.
          assert.deepEqual(await asked(node), ['plain', 'plain', 'edited']);
          await assertNothingStays(node);
          assert.deepEqual(
            (await readdir(join(node.root, dirname(journal)))).map((name) => name.replace(/-\w+$/, '')),
            ['journal.json', 'original'],
          );
          // What a killed agent left of it does not matter.
          await rm(join(node.root, configFile));
          await writeFile(join(node.root, configFile), `${configuration(version)}# again\n`);
          const left = ['--unit=weir-config-dump', '--property=RemainAfterExit=yes', '--no-block', '-q'];
          await node.inside('systemd-run', ...left, '--property=DefaultDependencies=no', '/bin/sleep', '60');
          await writeFile(join(node.root, dirname(journal), 'config-dump.out'), 'left\n'.repeat(10_000));
          assert.deepEqual(await configure(node), { kind: 'configured' });
          await assertNothingStays(node);
        });
      });

      it('is not set where containerd does not start with its configuration as it is', async () => {
        await withNode(configuration(version), async (node) => {
          const broken = `${configuration(version)}
[plugins."io.containerd.gc.v1.scheduler"]
  pause_threshold = "much"
`;
          await writeFile(join(node.root, configFile), broken);
          const run = await node.run();
          const outcome = await configure(node);
          assert.equal(outcome.kind, 'refused');
          assert.match(
            'reason' in outcome ? outcome.reason : '',
            /^containerd would not start with its configuration as it is: containerd: .*(?:much|string)/,
          );
          assert.equal(await readFile(join(node.root, configFile), 'utf8'), broken);
          assert.equal(await node.run(), run);
          await assertNothingStays(node);
        });
      });

      for (const [what, script, reason] of [
        [
          'does not start with it',
          'echo "containerd: no such thing" >&2; exit 1',
          /^containerd would not start with \/etc\/containerd\/config\.toml as weir edited it: containerd: no such thing$/,
        ],
        [
          'reads something else by it',
          '"$real" "$@" | sed "s/stats_collect_period = 11/stats_collect_period = 12/; s/oom_score = 0/oom_score = 7/"; exit',
          /^\/etc\/containerd\/config\.toml does not do: containerd reads another (?:oom_score|plugins\.\S+) with it$/,
        ],
      ] as const)
        it(`is taken back without a restart where containerd ${what}, and not tried again`, async () => {
          const text = configuration(version);
          await withNode(text, async (node) => {
            await wrap(node, version, script);
            const run = await node.run();
            const outcome = await configure(node);
            assert.equal(outcome.kind, 'failed');
            assert.match('reason' in outcome ? outcome.reason : '', reason);
            assert.equal(await readFile(join(node.root, configFile), 'utf8'), text);
            const again = await configure(node);
            assert.match('reason' in again ? again.reason : '', /^this was tried with the same files before/);
            assert.deepEqual(await asked(node), ['plain', 'plain', 'edited']);
            assert.equal(await node.run(), run);
            await assertNothingStays(node);
          });
        });

      it('is brought to its end by the next agent, when one is killed while containerd is asked', async () => {
        await withNode(configuration(version), async (node) => {
          await wrap(node, version, 'while [ -e /run/weir/hold ]; do sleep 0.1; done');
          await writeFile(join(node.root, '/run/weir/hold'), '');
          const run = await node.run();
          const child = join(import.meta.dirname, 'configure-killed.ts');
          const killed = await start(process.execPath, [child, node.root, stateDir, certs, 'asking'], {
            ready: async (running) => {
              for (; !(await asked(node)).includes('edited'); await setTimeout(100)) running.mustRun();
            },
          });
          assert.equal(await killed.stop('SIGKILL'), 'SIGKILL');
          assert.match(await stateOf(node), /^ActiveState=activating$/m);
          assert.equal(await node.run(), run);
          await rm(join(node.root, '/run/weir/hold'));
          assert.deepEqual(await configure(node, { sight: await see(node) }), { kind: 'configured' });
          assert.deepEqual(await asked(node), ['plain', 'plain', 'edited', 'edited']);
          assert.notEqual(await node.run(), run);
          await assertNothingStays(node);
        });
      });

      for (const [when, restarts] of [
        ['before', 1],
        ['after', 0],
      ] as const)
        it(`is brought to its end by the next agent, when one is killed ${when} the restart`, async () => {
          await withNode(configuration(version), async (node) => {
            const child = join(import.meta.dirname, 'configure-killed.ts');
            const killed = await start(process.execPath, [child, node.root, stateDir, certs, when], {
              ready: async (running) => {
                await running.line(/^killing/).catch(() => undefined);
              },
            });
            assert.equal(await killed.stop('SIGKILL'), 'SIGKILL');
            const run = await node.run();
            let turns = 0;
            const takeTurn: TakeTurn = () => {
              turns += 1;
              return turn(signal);
            };
            assert.deepEqual(await configure(node, { sight: await see(node), takeTurn }), {
              kind: 'configured',
            });
            assert.equal(turns, 1);
            assert.equal((await node.run()) === run ? 0 : 1, restarts);
            const last = await node.run();
            assert.deepEqual(await configure(node, { sight: await see(node) }), { kind: 'unneeded' });
            assert.equal(await node.run(), last);
          });
        });

      it('is not touched where a restart would end containers', { skip: version !== '1.7' }, async () => {
        const text = configuration(version);
        const refuse = async (node: SystemdNode): Promise<void> => {
          const run = await node.run();
          const outcome = await configure(node);
          assert.equal(outcome.kind, 'refused');
          assert.match('reason' in outcome ? outcome.reason : '', /has KillMode=control-group/);
          assert.equal(await readFile(join(node.root, configFile), 'utf8'), text);
          assert.equal(await node.run(), run);
        };
        await withNode(text, refuse, 'control-group');
      });
    });

  it('is left alone where its file is on a read-only file system', {
    skip: !runnable.includes('1.7'),
  }, async () => {
    const file = join(scratch, 'read-only.toml');
    await writeFile(file, configuration('1.7'));
    const node = await startNode('1.7', scratch, configuration('1.7'));
    try {
      await node.inside('ln', '--symbolic', '--force', file, configFile);
      const outcome = await configure(node);
      assert.equal(outcome.kind, 'refused');
      assert.equal(
        'reason' in outcome && outcome.reason,
        `${configFile}, which leads to ${file}, is on a read-only file system`,
      );
    } finally {
      await node.stop();
    }
  });

  it('is left alone where systemd does not answer', { skip: !runnable.includes('1.7') }, async () => {
    const text = configuration('1.7');
    const node = await startNode('1.7', scratch, text);
    try {
      await node.inside('rm', '/run/dbus/system_bus_socket');
      const outcome = await configure(node);
      assert.equal(outcome.kind, 'refused');
      assert.match('reason' in outcome ? outcome.reason : '', /^systemd does not answer on .*ENOENT/);
      assert.equal(await readFile(join(node.root, configFile), 'utf8'), text);
    } finally {
      await node.stop();
    }
  });
});

function see({ root }: SystemdNode): Promise<NodeSight> {
  return seeNode({ root, askCri });
}

/** containerd 2.2 and later have a default: there it is set as it would be where an earlier one has none. */
async function lacks(node: SystemdNode): Promise<NodeSight> {
  const sight = await see(node);
  return { ...sight, missingConfigPath: certs };
}

async function configure(
  node: SystemdNode,
  { sight, takeTurn = turn }: { sight?: NodeSight; takeTurn?: TakeTurn } = {},
): Promise<Configured> {
  const { root } = node;
  const seen = sight ?? (await lacks(node));
  return configureRuntime({
    root,
    stateDir,
    version: '1.2.3',
    sight: seen,
    takeTurn,
    log,
    signal,
    findRestarter,
  });
}

const turn: TakeTurn = () =>
  Promise.resolve({ lost: signal, release: () => Promise.resolve(), abandon: () => undefined });

function assertOnlyPath(version: Version, before: string, after: string): void {
  const keys = ['plugins', CRI[version], 'registry', 'config_path'];
  const [one, other] = [parseToml(before), parseToml(after)];
  assert.equal(valueAt(other, keys), certs);
  const registry = valueAt(other, keys.slice(0, -1));
  assert.ok(typeof registry === 'object' && registry !== null);
  Object.assign(registry, { config_path: valueAt(one, keys) });
  // It also lists the files that it was made of, in no order.
  assert.deepEqual({ ...other, imports: [] }, { ...one, imports: [] });
}

/** Its containerd is a script that notes when it is asked, and may answer itself once the configuration is edited. */
async function wrap(node: SystemdNode, version: Version, edited = ''): Promise<void> {
  const directory = join(node.root, '/run/systemd/system/containerd.service.d');
  await mkdir(directory);
  await mkdir(join(node.root, dirname(wrapper)));
  const script = `#!/bin/bash
real=${join(await provide(recipe(version)), 'containerd')}
if [[ "$*" == *"config dump" ]]; then
  if grep -q ${certs} ${configFile}; then
    echo edited >> /run/weir/asked
    ${edited}
  else echo plain >> /run/weir/asked; fi
fi
exec -a "$0" "$real" "$@"
`;
  await writeFile(join(node.root, wrapper), script, { mode: 0o755 });
  await writeFile(join(directory, 'wrapper.conf'), `[Service]\nExecStart=\nExecStart=${wrapper}\n`);
  await node.inside('systemctl', 'daemon-reload');
  await node.inside('systemctl', 'restart', 'containerd');
}

/** In which state the configuration was when containerd was asked for it. */
async function asked({ root }: SystemdNode): Promise<readonly string[]> {
  const text = await readFile(join(root, '/run/weir/asked'), 'utf8').catch(() => '');
  return text.split('\n').slice(0, -1);
}

function stateOf(node: SystemdNode): Promise<string> {
  const properties = ['--property=LoadState', '--property=ActiveState'];
  return node.inside('systemctl', 'show', ...properties, 'weir-config-dump.service');
}

async function assertNothingStays(node: SystemdNode): Promise<void> {
  assert.match(await stateOf(node), /^LoadState=not-found$/m);
  const names: readonly string[] = await readdir(join(node.root, dirname(journal))).catch(() => []);
  assert.deepEqual(
    names.filter((name) => name.startsWith('config-dump')),
    [],
  );
}

/** The unit does not start while the file has this in it. */
async function refuseToStart(node: SystemdNode, what: string): Promise<void> {
  const directory = join(node.root, '/run/systemd/system/containerd.service.d');
  await mkdir(directory);
  const check = `/bin/sh -c '! grep -q ${what} ${configFile}'`;
  await writeFile(join(directory, 'refuse.conf'), `[Service]\nExecStartPre=${check}\n`);
  await node.inside('systemctl', 'daemon-reload');
}
