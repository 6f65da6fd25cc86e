import assert from 'node:assert/strict';
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, suite, test } from 'node:test';
import { pino } from 'pino';
import { CertsDirectories } from '../../agent/certs-directories.ts';
import { parseConfig } from '../../config/parse.ts';
import { type Image, makeImage } from '../support/image.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';
import { type Ran, type RunningWeir, startWeir, weir, weirInto } from '../support/weir-command.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-cli-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const at = (name: string): string => join(directory, name);

async function configured(text: string): Promise<string> {
  await writeFile(at('config.yaml'), text);
  return at('config.yaml');
}

/** `weir agent --once` in this test's directory. */
async function agentOnce(text: string): Promise<Ran> {
  const place = ['--certs-dir', at('certs'), '--state-dir', at('state')];
  const config = await configured(text);
  return weir('agent', '--once', '--config', config, ...place, '--mirror', 'http://127.0.0.1:30500');
}

async function get(mirror: RunningWeir, path: string): Promise<{ status: number; body: string }> {
  const answer = await fetch(`${mirror.url}${path}`);
  return { status: answer.status, body: await answer.text() };
}

suite('weir', () => {
  const flags: Readonly<Record<string, readonly string[]>> = {
    standalone: ['--config', '--data', '--listen', '--certs-dir', '--state-dir', '--no-prefixes', '--ca-dir'],
    registry: ['--config', '--listen', '--store', '--no-prefixes', '--ca-dir'],
    agent: ['--config', '--certs-dir', '--mirror', '--state-dir', '--once', '--listen'],
    rollback: ['--certs-dir', '--state-dir', '--host-root'],
    'config check': ['<file>'],
    'config routes': ['<file>'],
  };
  for (const [command, wanted] of Object.entries(flags))
    test(`${command} --help names its flags`, async () => {
      const { code, stdout } = await weir(...command.split(' '), '--help');
      assert.equal(code, 0);
      for (const flag of wanted) assert.ok(stdout.includes(flag), flag);
    });

  test('--help names every subcommand', async () => {
    const { code, stdout } = await weir('--help');
    assert.equal(code, 0);
    for (const command of ['standalone', 'registry', 'agent', 'rollback', 'config'])
      assert.match(stdout, new RegExp(`^ +${command}\\b`, 'm'));
  });

  test('wrong use ends with 2 and says what is wrong', async () => {
    const config = await configured('upstreams: { ghcr.io: {} }');
    const rest = ['--listen', '127.0.0.1:0', '--store', `file:${at('store')}`];
    const table: readonly (readonly [readonly string[], RegExp])[] = [
      [[], /Usage/],
      [['nonsense'], /unknown command/],
      [['registry'], /--config/],
      [
        ['registry', '--config', config, '--listen', 'nowhere', '--store', `file:${at('store')}`],
        /"nowhere" is no address/,
      ],
      [
        ['registry', '--config', config, '--listen', '127.0.0.1:0', '--store', 'ftp:x'],
        /"ftp:x" is no store/,
      ],
      [
        ['registry', '--config', config, '--listen', '127.0.0.1:0', '--store', 's3:///nothing?region'],
        /s3:\/\//,
      ],
      [['agent', '--config', config, '--node', 'node1'], /--node is for an agent of a cluster/],
      [
        ['agent', '--config', config, '--configure-runtime'],
        /--configure-runtime is for an agent of a cluster/,
      ],
      ...['--certs-dir', '--state-dir', '--host-root'].map(
        (flag) =>
          [
            ['rollback', flag, ''],
            new RegExp(`'${flag} <dir>' argument '' is invalid. It is empty`),
          ] as const,
      ),
      [['registry', '--config', at('none.yaml'), ...rest], /cannot read the configuration/],
      [
        [
          'agent',
          '--config',
          config,
          '--certs-dir',
          at('certs'),
          '--state-dir',
          at('state'),
          '--mirror',
          'ftp://x',
          '--once',
        ],
        /ftp:\/\/x/,
      ],
    ];
    for (const [parameters, message] of table) {
      const { code, stderr } = await weir(...parameters);
      assert.equal(code, 2, `${parameters.join(' ')}: ${stderr}`);
      assert.match(stderr, message);
    }
  });
});

suite('a start that fails', () => {
  test('ends the command with 1 and one line, and leaves nothing running', { timeout: 20_000 }, async () => {
    const config = await configured('upstreams: { ghcr.io: {} }');
    const taken = await UpstreamRegistry.start();
    await writeFile(at('file'), 'no directory');
    const places = ['--certs-dir', at('certs'), '--state-dir', at('state')];
    const store = ['--store', `file:${at('store')}`];
    const table: readonly (readonly [readonly string[], RegExp])[] = [
      [['registry', '--config', config, '--listen', taken.host, ...store], /cannot listen on .*EADDRINUSE/],
      [
        ['registry', '--config', config, '--listen', '127.0.0.1:0', '--store', `file:${at('file')}`],
        /cannot use .* as the store/,
      ],
      [
        ['standalone', '--config', config, '--listen', taken.host, '--data', at('data'), ...places],
        /cannot listen on/,
      ],
      [
        ['agent', '--config', config, '--listen', taken.host, '--mirror', 'http://127.0.0.1:1', ...places],
        /cannot listen on/,
      ],
    ];
    for (const [parameters, message] of table) {
      const { code, stderr } = await weir('--log-level', 'error', ...parameters);
      assert.equal(code, 1, stderr);
      assert.match(stderr, message);
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
    }
    await taken.stop();
  });
});

suite('weir config', () => {
  test('check accepts with 0 and has warnings on standard error', async () => {
    const file = await configured(
      'proxies:\n  docker.io: docker.m.daocloud.io\nincludeNamespaces:\n- team-a\n',
    );
    const { code, stdout, stderr } = await weir('config', 'check', file);
    assert.equal(code, 0);
    assert.match(stdout, /1 upstream mirrored/);
    assert.match(stderr, /config\.yaml:3:1: warning: includeNamespaces: /);
  });

  test('check refuses with 2 and every problem', async () => {
    const file = await configured('enabled: maybe\nupstreams:\n  ghcr.io: { mirrr: x }\n');
    const { code, stdout, stderr } = await weir('config', 'check', file);
    assert.equal(code, 2);
    assert.equal(stdout, '');
    assert.match(
      stderr,
      /config\.yaml:1:1: error: enabled: .*\n.*config\.yaml:3:14: error: upstreams\.ghcr\.io\.mirrr: .*\nweir: .* would be refused for 2 errors/,
    );
  });

  test('an output that cannot be written ends with 1 and one line', async () => {
    const config = await configured('upstreams: { ghcr.io: {} }');
    for (const parameters of [['config', 'routes', config], ['--help']]) {
      const { code, stderr } = await weirInto('/dev/full', ...parameters);
      assert.equal(code, 1);
      assert.match(stderr, /^weir: cannot write to standard output: ENOSPC.*\n$/);
    }
  });

  test('routes shows what each registry host becomes', async () => {
    const file = await configured(
      'upstreams:\n  docker.io: { mirror: https://hub.example }\n  nvcr.io: { direct: false, tags: { ttl: 10m } }\n  gcr.io: { mirror: https://gcr.example, via: node }\n',
    );
    const { code, stdout } = await weir('config', 'routes', file);
    assert.equal(code, 0);
    const rows = stdout.split('\n').map((line) => line.split(/ {2,}/));
    assert.deepEqual(rows.slice(1, 4), [
      [
        'docker.io',
        'weir, then https://registry-1.docker.io',
        'https://hub.example, then https://registry-1.docker.io',
        '1m',
        '/dockerhub /docker.io',
      ],
      ['nvcr.io', 'weir only', 'https://nvcr.io', '10m', '/nvcr.io'],
      [
        'gcr.io',
        'https://gcr.example, then https://gcr.io',
        'https://gcr.example, then https://gcr.io',
        '1m',
        '/gcr.io',
      ],
    ]);
  });
});

suite('weir agent', () => {
  for (const isLost of [false, true])
    test(`rollback of a whole node finds the list trap's directories, ${isLost ? 'without' : 'with'} its memory`, async () => {
      const place = { root: directory, stateDir: '/var/lib/weir', log: pino({ level: 'silent' }) };
      const list = ['/etc/containerd/certs.d', '/etc/containerd/certs.d:/etc/docker/certs.d'];
      const { config } = parseConfig('upstreams: { docker.io: {} }');
      const files = new CertsDirectories(place, list);
      await files.apply({ config, mirror: 'http://127.0.0.1:5700' });
      const names = (): Promise<string[][]> => Promise.all(list.map((path) => readdir(at(`.${path}`))));
      assert.deepEqual(await names(), [['docker.io'], ['docker.io']]);
      if (isLost) await rm(at('var/lib/weir'), { recursive: true });

      const rollback = ['rollback', '--host-root', directory, '--state-dir', '/var/lib/weir'];
      const { code, stdout } = await weir(...rollback);
      assert.equal(code, 0);
      assert.equal(stdout.match(/^removed .*docker\.io\/hosts\.toml$/gm)?.length, 2, stdout);
      const again = await weir(...rollback);
      assert.equal(again.stdout, 'nothing of weir is on this node\n');
      for (const path of list) assert.deepEqual(await readdir(at(`.${path}`)).catch(() => []), []);
    });

  test('--once writes and ends, and rollback undoes it, twice', async () => {
    await mkdir(at('certs/ghcr.io'), { recursive: true });
    await writeFile(at('certs/ghcr.io/hosts.toml'), '# mine\nserver = "https://ghcr.io"\n');
    assert.equal((await agentOnce('upstreams: { ghcr.io: {}, docker.io: {} }')).code, 0);
    assert.match(
      await readFile(at('certs/docker.io/hosts.toml'), 'utf8'),
      /\[host\."http:\/\/127\.0\.0\.1:30500"\]/,
    );
    assert.match(
      await readFile(at('certs/ghcr.io/hosts.toml'), 'utf8'),
      /\[host\."http:\/\/127\.0\.0\.1:30500"\]/,
    );
    for (let round = 0; round < 2; round++) {
      const { code } = await weir('rollback', '--certs-dir', at('certs'), '--state-dir', at('state'));
      assert.equal(code, 0);
      assert.deepEqual(await readdir(at('certs')), ['ghcr.io']);
      assert.equal(
        await readFile(at('certs/ghcr.io/hosts.toml'), 'utf8'),
        '# mine\nserver = "https://ghcr.io"\n',
      );
    }
  });

  test('what looks at a node refuses a root that is no directory', async () => {
    await writeFile(at('file'), '');
    const plan = ['--config', await configured('upstreams: {}'), '--mirror', 'http://127.0.0.1:1'];
    const agent = [
      '--config-map',
      'a/b',
      '--node',
      'a',
      '--daemon-set',
      'a/b',
      '--mirror',
      'https://a.example',
      '--listen',
      '127.0.0.1:0',
    ];
    const commands = [['node', 'inspect'], ['node', 'plan', ...plan], ['rollback'], ['agent', ...agent]];
    for (const root of [at('none'), at('file')])
      for (const command of commands) {
        const { code, stderr } = await weir(...command, '--host-root', root);
        assert.equal(code, 2);
        assert.match(stderr, /^weir: there is no directory .*: --host-root is where/);
      }
  });

  test('rollback says what it restored when not all can be', async () => {
    await agentOnce('upstreams: { docker.io: {}, ghcr.io: {} }');
    await rm(at('certs/docker.io/hosts.toml'));
    await mkdir(at('certs/docker.io/hosts.toml'));
    const place = ['--certs-dir', at('certs'), '--state-dir', at('state')];
    const { code, stdout, stderr } = await weir('rollback', ...place);
    assert.equal(code, 1);
    assert.match(stdout, /^removed .*ghcr\.io\/hosts\.toml$/m);
    assert.match(stderr, /docker\.io/);
  });

  test('rollback refuses a certificates directory that neither is there nor ever was', async () => {
    const place = ['--certs-dir', at('none'), '--state-dir', at('state')];
    const { code, stderr } = await weir('rollback', ...place);
    assert.equal(code, 2);
    assert.match(stderr, /^weir: there is no directory .*none, and weir wrote to none of that name$/m);
    await agentOnce('upstreams: { ghcr.io: {} }');
    await rm(at('certs'), { recursive: true });
    const removed = await weir('rollback', '--certs-dir', at('certs'), '--state-dir', at('state'));
    assert.equal(removed.code, 0, removed.stderr);
  });

  test('--once ends with 1 and names each upstream whose file could not be merged or written', async () => {
    await mkdir(at('certs/ghcr.io'), { recursive: true });
    await writeFile(at('certs/ghcr.io/hosts.toml'), 'no TOML');
    await mkdir(at('certs/quay.io/hosts.toml'), { recursive: true });
    const { code, stdout, stderr } = await agentOnce(
      'upstreams: { ghcr.io: {}, quay.io: {}, docker.io: {} }',
    );
    assert.equal(code, 1);
    assert.match(stdout, /^written .*docker\.io\/hosts\.toml$/m);
    assert.match(
      stderr,
      /^weir: not every upstream is mirrored:\nquay\.io: .*\nghcr\.io: .*cannot be merged/m,
    );
  });

  test('--once ends with 0 when somebody edited a file, which is theirs', async () => {
    await agentOnce('upstreams: { docker.io: {} }');
    await appendFile(at('certs/docker.io/hosts.toml'), '# mine\n');
    const { code, stdout } = await agentOnce('upstreams: { docker.io: {} }');
    assert.equal(code, 0);
    assert.match(stdout, /^left .*was edited by hand/);
  });

  test('--once with a configuration that is refused ends with 2 and writes nothing', async () => {
    const { code, stderr } = await agentOnce('upstreams: { "ghcr.io\\"]\\n": {} }');
    assert.equal(code, 2);
    assert.match(stderr, /is no registry host/);
    await assert.rejects(readdir(at('certs')), /ENOENT/);
  });

  test('another configuration file does not start with the last good configuration of this one', async () => {
    const config = await configured('upstreams: { ghcr.io: {} }');
    const rest = [
      '--certs-dir',
      at('certs'),
      '--state-dir',
      at('state'),
      '--mirror',
      'http://127.0.0.1:30500',
    ];
    const start = (file: string): Promise<RunningWeir> =>
      startWeir('agent', '--config', file, '--listen', '127.0.0.1:0', ...rest);
    const first = await start(config);
    await first.logged(/a registry host is written/);
    assert.equal(await first.stop(), 0);
    await writeFile(at('other.yaml'), 'upstreams: [');
    const { code, stderr } = await weir('agent', '--config', at('other.yaml'), ...rest);
    assert.equal(code, 2);
    assert.match(stderr, /the configuration is refused/);
    await writeFile(config, 'upstreams: [');
    // Twice, since what was fallen back to is kept again.
    for (let round = 0; round < 2; round++) {
      const again = await start(config);
      await again.logged(/the last good one, .*, is in force/);
      assert.equal(await again.stop(), 0);
    }
  });

  test('stays, answers for its state, and follows the configuration', async () => {
    const config = await configured('upstreams: { ghcr.io: {} }');
    const agent = await startWeir(
      'agent',
      '--config',
      config,
      '--certs-dir',
      at('certs'),
      '--state-dir',
      at('state'),
      '--mirror',
      'http://127.0.0.1:30500',
      '--listen',
      '127.0.0.1:0',
    );
    try {
      await agent.logged(/a registry host is written/);
      assert.equal((await fetch(`${agent.url}/readyz`)).status, 200);
      assert.match(
        await (await fetch(`${agent.url}/metrics`)).text(),
        /weir_agent_hosts\{state="configured"\} 1/,
      );
      await writeFile(config, 'enabled: false\nupstreams: { ghcr.io: {} }');
      await agent.logged(/a registry host is removed/);
      await assert.rejects(readFile(at('certs/ghcr.io/hosts.toml')), /ENOENT/);
    } finally {
      assert.equal(await agent.stop(), 0);
    }
  });
});

suite('weir registry and standalone', () => {
  let upstream: UpstreamRegistry;
  let image: Image;
  before(async () => {
    upstream = await UpstreamRegistry.start();
    image = await makeImage([{ hello: 'world' }]);
    upstream.push('library/app', 'v1', image);
    upstream.push('quay/app', 'v1', image);
  });
  after(() => upstream.stop());

  test('the registry serves, says that it is well, and takes names literally when it is told to', async () => {
    const config = await configured(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`);
    const rest = ['--config', config, '--listen', '127.0.0.1:0', '--store', `file:${at('store')}`];
    const mirror = await startWeir('registry', ...rest);
    assert.equal((await get(mirror, '/v2/library/app/manifests/v1')).body, image.manifest.bytes.toString());
    assert.equal((await get(mirror, '/v2/quay/app/manifests/v1')).status, 404);
    for (const path of ['/livez', '/readyz']) assert.equal((await get(mirror, path)).status, 200);
    assert.match(
      (await get(mirror, '/metrics')).body,
      /weir_registry_requests_total\{kind="manifest",status="200",cache="miss"\} 1/,
    );
    assert.equal(await mirror.stop(), 0);

    const literal = await startWeir('registry', ...rest, '--no-prefixes');
    assert.equal((await get(literal, '/v2/quay/app/manifests/v1')).status, 200);
    assert.equal(await literal.stop('SIGINT'), 0);
  });

  test('standalone names itself to containerd and starts again with the last good configuration', async () => {
    const config = await configured(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`);
    const rest = [
      '--config',
      config,
      '--data',
      at('data'),
      '--listen',
      '127.0.0.1:0',
      '--certs-dir',
      at('certs'),
      '--state-dir',
      at('state'),
    ];
    const first = await startWeir('standalone', ...rest);
    await first.logged(/a registry host is written/);
    assert.ok((await readFile(at('certs/docker.io/hosts.toml'), 'utf8')).includes(`[host."${first.url}"]`));
    assert.equal((await get(first, '/v2/library/app/manifests/v1?ns=docker.io')).status, 200);
    await writeFile(config, 'upstreams: [');
    await first.logged(/the configuration is refused/);
    assert.match(
      (await get(first, '/readyz')).body,
      /the configuration is refused, the one before it stays in force: .*config\.yaml:1:13/,
    );
    assert.match((await get(first, '/metrics')).body, /^weir_config_valid 0$/m);
    assert.equal(await first.stop(), 0);

    const second = await startWeir('standalone', ...rest);
    await second.logged(/a registry host is written/);
    assert.equal((await get(second, '/v2/library/app/manifests/v1?ns=docker.io')).status, 200);
    assert.equal(await second.stop(), 0);
    assert.deepEqual(
      upstream.seen.filter(({ path }) => path.includes('library/app')).length,
      2,
      'once here, once in the test before',
    );
  });
});
