import assert from 'node:assert/strict';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, before, beforeEach, suite, test } from 'node:test';
import { pino } from 'pino';
import { makeIdentity } from '../support/certificates.ts';
import { type Image, makeImage } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import { startHttpProxy, startTlsFront } from '../support/proxies.ts';
import { type Fault, sendJson, UpstreamRegistry } from '../support/upstream-registry.ts';

const LOGIN = 'robot$corp:s3cret:with/colon';
const OTHER_LOGIN = 'robot$corp:an0ther';

suite('credentials', () => {
  let image: Image;
  let upstream: UpstreamRegistry;
  let directory: string;
  let file: string;
  let logged: string[];
  const closers: (() => Promise<void>)[] = [];

  before(async () => {
    image = await makeImage([{ hello: 'world' }]);
  });
  beforeEach(async () => {
    logged = [];
    directory = await temporaryDirectory();
    file = join(directory, 'config.json');
    upstream = await startUpstream();
  });
  afterEach(async () => {
    for (const close of closers.splice(0).toReversed()) await close();
    await rm(directory, { recursive: true, force: true });
    // Whatever a test is about: nothing that is secret reaches the log.
    for (const secret of SECRETS) assert.ok(!logged.join('').includes(secret), `${secret} is in the log`);
  });

  const startUpstream = async (): Promise<UpstreamRegistry> => {
    const started = await UpstreamRegistry.start();
    closers.push(() => started.stop());
    for (const tag of ['v1', 'v2', 'v3']) started.push('library/app', tag, image);
    return started;
  };
  const start = async (settings: object = {}, more: object = {}): Promise<Mirror> => {
    const docker = { endpoint: upstream.url, credentials: 'corp', access: 'everyone', ...settings };
    const mirror = await startMirror(JSON.stringify({ upstreams: { 'docker.io': docker, ...more } }), {
      dockerConfig: file,
      caDirectory: directory,
      log: pino({ level: 'trace' }, { write: (line: string) => void logged.push(line) }),
    });
    closers.push(() => mirror.close());
    return mirror;
  };
  const write = (auths: object) => writeFile(file, JSON.stringify({ auths }));

  test('are shown to a registry that wants a password, once it has asked and from then on', async () => {
    await write({ corp: { auth: base64(LOGIN) } });
    upstream.fault = wantsPassword(LOGIN);
    const mirror = await start();
    for (const name of ['v1', 'v2']) assert.equal((await tag(mirror, name)).status, 200);
    const basic = `Basic ${base64(LOGIN)}`;
    assert.deepEqual(authorizations(upstream), [undefined, basic, basic]);
    for (const { digest, bytes } of image.blobs) {
      const answer = await fetch(`${mirror.url}/v2/library/app/blobs/${digest}`);
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes));
    }
  });

  test('are shown to the token service, and the registry gets the token only', async () => {
    await write({ corp: { auth: base64(LOGIN) } });
    upstream.fault = wantsToken(`${upstream.url}/token`, [LOGIN]);
    const mirror = await start();
    for (const name of ['v1', 'v2']) assert.equal((await tag(mirror, name)).status, 200);
    assert.deepEqual(
      upstream.seen.map(({ path, headers }) => [path.split('?')[0], headers.authorization]),
      [
        ['/v2/library/app/manifests/v1', undefined],
        ['/token', `Basic ${base64(LOGIN)}`],
        ['/v2/library/app/manifests/v1', `Bearer ${tokenOf(LOGIN)}`],
        ['/v2/library/app/manifests/v2', `Bearer ${tokenOf(LOGIN)}`],
      ],
    );
    assert.match(decodeURIComponent(upstream.seen[1]?.path ?? ''), /scope=repository:library\/app:pull$/);
  });

  const entries: readonly (readonly [what: string, name: string, auths: object])[] = [
    ['of the very name', 'corp', { corp: { auth: base64(LOGIN) } }],
    [
      'with user name and password',
      'corp',
      { corp: { username: 'robot$corp', password: 's3cret:with/colon' } },
    ],
    [
      'with everything that kubectl writes',
      'corp',
      { corp: { username: 'x', password: 'y', auth: base64(LOGIN) } },
    ],
    ['with https:// in the file', 'quay.io', { 'https://quay.io': { auth: base64(LOGIN) } }],
    ['with https:// in the configuration', 'https://quay.io', { 'quay.io': { auth: base64(LOGIN) } }],
    ['with a port', 'harbor.corp:8443', { 'https://harbor.corp:8443/v2/': { auth: base64(LOGIN) } }],
    [
      "under docker's name for Docker Hub",
      'https://index.docker.io/v1/',
      { 'https://index.docker.io/v1/': { auth: base64(LOGIN) } },
    ],
    [
      'under another name of Docker Hub',
      'docker.io',
      { 'https://index.docker.io/v1/': { auth: base64(LOGIN) } },
    ],
    [
      'of the very name before one that means the same',
      'quay.io',
      { 'https://quay.io': { auth: base64(OTHER_LOGIN) }, 'quay.io': { auth: base64(LOGIN) } },
    ],
    [
      'of a path',
      'quay.io/team',
      { 'quay.io': { auth: base64(OTHER_LOGIN) }, 'quay.io/team': { auth: base64(LOGIN) } },
    ],
    ['that docker padded', 'corp', { corp: { auth: base64(`${LOGIN}\0\0`) } }],
  ];
  for (const [what, credentials, auths] of entries)
    test(`are found in an entry ${what}`, async () => {
      await write(auths);
      upstream.fault = wantsPassword(LOGIN);
      assert.equal((await tag(await start({ credentials }))).status, 200);
    });

  const unusable: Readonly<Record<string, readonly [content: string | undefined, message: RegExp]>> = {
    'the file is missing': [
      undefined,
      /cannot read \S+config\.json \(ENOENT\), which is to hold its credentials \\"corp\\"/,
    ],
    'the file is no JSON': [
      `{"auths":{"corp":{"auth":"${base64(LOGIN)}"`,
      /config\.json, which is to hold its credentials \\"corp\\", is no docker config\.json/,
    ],
    'the file is something else': ['{"auths":["corp"]}', /is no docker config\.json/],
    'the file has no entries': ['{}', /config\.json has no entry \\"corp\\"/],
    'the file has other entries only': [
      JSON.stringify({ auths: { corporation: { auth: base64(LOGIN) } } }),
      /config\.json has no entry \\"corp\\"/,
    ],
    'the entry is empty': ['{"auths":{"corp":{}}}', /the entry \\"corp\\" of \S+config\.json holds neither/],
    'the entry has an identity token': [
      `{"auths":{"corp":{"auth":"","identitytoken":"s3cret"}}}`,
      /identity tokens and credential helpers are not used/,
    ],
    'the entry has no password': [`{"auths":{"corp":{"auth":"${base64('robot')}"}}}`, /holds neither/],
    'the entry is no object': ['{"auths":{"corp":"s3cret"}}', /holds neither/],
  };
  for (const [what, [content, message]] of Object.entries(unusable))
    test(`fail the upstream when ${what}: it is not asked at all, and the answer is 503`, async () => {
      if (content !== undefined) await writeFile(file, content);
      await assertRefused(await start(), message);
      assert.deepEqual(upstream.seen, []);
    });

  test('fail the upstream when no --docker-config is given', async () => {
    const mirror = await startMirror(
      `upstreams: { docker.io: { endpoint: "${upstream.url}", credentials: corp, access: everyone } }`,
    );
    closers.push(() => mirror.close());
    await assertRefused(
      mirror,
      /docker\.io: its credentials \\"corp\\" are in no file; say with --docker-config/,
    );
    assert.deepEqual(upstream.seen, []);
  });

  test('that the upstream or its token service refuses are told by their name, with 404', async () => {
    await write({ corp: { auth: base64(LOGIN) } });
    const mirror = await start();
    for (const [fault, message] of [
      [wantsPassword(OTHER_LOGIN), /it answered 401 to the credentials \\"corp\\"/],
      [wantsToken(`${upstream.url}/token`, [OTHER_LOGIN]), /answered 401 to the credentials \\"corp\\"/],
    ] as const) {
      upstream.fault = fault;
      const answer = await tag(mirror);
      assert.equal(answer.status, 404);
      assert.match(await answer.text(), message);
    }
  });

  test('that changed are used at once, and what the ones before had got is not', async () => {
    // As a Secret is mounted: the file is a link through ..data, which is replaced as a whole.
    const publish = async (version: string, login: string): Promise<void> => {
      await mkdir(join(directory, version));
      await writeFile(
        join(directory, version, 'config.json'),
        JSON.stringify({ auths: { corp: { auth: base64(login) } } }),
      );
      await symlink(version, join(directory, '..data_tmp'));
      await rename(join(directory, '..data_tmp'), join(directory, '..data'));
    };
    await publish('..1', LOGIN);
    await symlink(join('..data', 'config.json'), file);
    const mirror = await start();
    upstream.fault = wantsToken(`${upstream.url}/token`, [LOGIN, OTHER_LOGIN]);
    assert.equal((await tag(mirror, 'v1')).status, 200);
    await publish('..2', OTHER_LOGIN);
    assert.equal((await tag(mirror, 'v2')).status, 200);
    assert.equal(authorizations(upstream).at(-1), `Bearer ${tokenOf(OTHER_LOGIN)}`);
    await publish('..3', LOGIN);
    upstream.seen.length = 0;
    assert.equal((await tag(mirror, 'v3')).status, 200);
    assert.deepEqual(authorizations(upstream), [
      undefined,
      `Basic ${base64(LOGIN)}`,
      `Bearer ${tokenOf(LOGIN)}`,
    ]);
  });

  test('are not used for the same registry under a name that has none', async () => {
    await write({ corp: { auth: base64(LOGIN) } });
    upstream.fault = wantsToken(`${upstream.url}/token`, [LOGIN, 'anonymous']);
    const mirror = await start({}, { 'open.example': { endpoint: upstream.url } });
    const answers = async (host: string): Promise<string | undefined> => {
      upstream.seen.length = 0;
      assert.equal((await tag(mirror, 'v1', host)).status, 200);
      return authorizations(upstream).at(-1);
    };
    assert.equal(await answers('docker.io'), `Bearer ${tokenOf(LOGIN)}`);
    assert.equal(await answers('open.example'), `Bearer ${tokenOf('anonymous')}`);
  });

  test('are never shown to a mirror, whatever it asks for', async () => {
    await write({ corp: { auth: base64(LOGIN) } });
    upstream.fault = wantsPassword(LOGIN);
    const other = await startUpstream();
    const mirror = await start({ mirror: other.url });
    const asks = {
      v1: wantsPassword(LOGIN),
      v2: wantsToken(`${other.url}/token`, [LOGIN]),
      v3: wantsToken(`${upstream.url}/token`, [LOGIN]),
    };
    for (const [name, fault] of Object.entries(asks)) {
      other.fault = fault;
      assert.equal((await tag(mirror, name)).status, 200);
    }
    assert.ok(other.seen.length >= 3);
    assert.ok(authorizations(other).every((authorization) => authorization === undefined));
  });

  test('do not follow a redirect to another origin, even when that asks for them', async () => {
    await write({ corp: { auth: base64(LOGIN) } });
    const elsewhere = await startUpstream();
    elsewhere.fault = wantsPassword(LOGIN);
    const wanted = wantsPassword(LOGIN);
    upstream.fault = (request, response) => {
      if (wanted(request, response)) return true;
      response.writeHead(307, { location: `${elsewhere.url}${request.url}` }).end();
      return true;
    };
    const mirror = await start({ trustedHosts: [elsewhere.host] });
    assert.equal((await tag(mirror)).status, 404);
    elsewhere.fault = undefined;
    assert.equal((await tag(mirror)).status, 200);
    assert.ok(elsewhere.seen.length >= 2);
    assert.ok(authorizations(elsewhere).every((authorization) => authorization === undefined));
  });

  suite('go to a token service', () => {
    const realms: readonly (readonly [endpoint: string, realm: string, goes: boolean])[] = [
      ['http://registry.corp.example', 'http://registry.corp.example/token', true],
      ['http://registry.corp.example', 'http://registry.corp.example:8080/token', true],
      ['http://registry.corp.example', 'http://auth.corp.example/token', true],
      ['http://registry-1.docker.io', 'http://auth.docker.io/token', true],
      ['http://registry.gitlab.com', 'http://gitlab.com/jwt/auth', true],
      ['http://registry.corp.example', 'http://corp.example.evil.example/token', false],
      ['http://registry.corp.example', 'http://evilcorp.example/token', false],
      ['http://registry.corp.co.uk', 'http://evil.co.uk/token', false],
      ['http://mine.github.io', 'http://theirs.github.io/token', false],
      ['http://10.1.2.3:5000', 'http://10.1.2.3:5001/token', true],
      ['http://10.1.2.3:5000', 'http://10.1.2.4:5000/token', false],
      ['http://registry', 'http://auth/token', false],
    ];
    for (const [endpoint, realm, goes] of realms)
      test(`at ${realm} from ${endpoint}${goes ? '' : ' only when "trustedHosts" names it'}`, async () => {
        await write({ corp: { auth: base64(LOGIN) } });
        const proxy = await startHttpProxy({ dial: () => upstream.host });
        closers.push(() => proxy.close());
        upstream.fault = wantsToken(realm, [LOGIN]);
        const { host } = new URL(realm);
        const startWith = async (trustedHosts: readonly string[]): Promise<Mirror> => {
          const mirror = await start();
          const docker = { endpoint, credentials: 'corp', access: 'everyone', egress: 'out', trustedHosts };
          mirror.configure(
            JSON.stringify({ upstreams: { 'docker.io': docker }, egress: { out: { proxy: proxy.url } } }),
          );
          return mirror;
        };
        const mirror = await startWith([]);
        if (goes) {
          assert.equal((await tag(mirror)).status, 200);
          return;
        }
        const escaped = host.replaceAll('.', '\\.');
        await assertRefused(
          mirror,
          new RegExp(
            `credentials \\\\"corp\\\\" are not sent there; if that is meant, add ${escaped} to its \\\\"trustedHosts\\\\"`,
          ),
        );
        assert.ok(proxy.seen.every((line) => line.includes(endpoint)));
        assert.equal((await tag(await startWith([host]))).status, 200);
      });

    test('without TLS from a registry with TLS only when "trustedHosts" names it', async () => {
      await write({ corp: { auth: base64(LOGIN) } });
      const identity = await makeIdentity(directory, ['DNS:registry.corp.example']);
      const front = await startTlsFront(upstream.host, identity);
      closers.push(() => front.close());
      const proxy = await startHttpProxy({
        dial: (target) => (target.endsWith(':443') ? front.host : upstream.host),
      });
      closers.push(() => proxy.close());
      upstream.fault = wantsToken('http://auth.corp.example/token', [LOGIN]);
      const mirror = await start();
      const configure = (trustedHosts: readonly string[]): void => {
        const docker = {
          endpoint: 'https://registry.corp.example',
          credentials: 'corp',
          access: 'everyone',
          ca: 'ca.pem',
          egress: 'out',
          trustedHosts,
        };
        mirror.configure(
          JSON.stringify({ upstreams: { 'docker.io': docker }, egress: { out: { proxy: proxy.url } } }),
        );
      };
      configure([]);
      await assertRefused(
        mirror,
        /http:\/\/auth\.corp\.example as its token service, which is not https; if that is meant, add auth\.corp\.example/,
      );
      configure(['auth.corp.example']);
      assert.equal((await tag(mirror)).status, 200);
    });

    test('but not on to where that redirects', async () => {
      await write({ corp: { auth: base64(LOGIN) } });
      const elsewhere = await startUpstream();
      const wanted = wantsToken(`${upstream.url}/token`, [LOGIN]);
      upstream.fault = (request, response) => {
        if (!request.url?.startsWith('/token')) return wanted(request, response);
        response.writeHead(307, { location: `${elsewhere.url}/token` }).end();
        return true;
      };
      const mirror = await start({ trustedHosts: [elsewhere.host] });
      assert.equal((await tag(mirror)).status, 404);
      assert.deepEqual(elsewhere.seen, []);
    });
  });
});

const SECRETS = [
  's3cret',
  'an0ther',
  base64(LOGIN),
  base64(OTHER_LOGIN),
  tokenOf(LOGIN),
  tokenOf(OTHER_LOGIN),
];

function tag(mirror: Mirror, name = 'v1', host = 'docker.io'): Promise<Response> {
  return fetch(`${mirror.url}/v2/library/app/manifests/${name}?ns=${host}`);
}

function authorizations({ seen }: UpstreamRegistry): (string | undefined)[] {
  return seen.map(({ headers }) => headers.authorization);
}

async function assertRefused(mirror: Mirror, message: RegExp): Promise<void> {
  const answer = await tag(mirror);
  assert.equal(answer.status, 503);
  const text = await answer.text();
  assert.match(text, message);
  for (const secret of SECRETS) assert.ok(!text.includes(secret));
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}

function tokenOf(login: string): string {
  return `token-of-${base64(login).replaceAll('=', '')}`;
}

function wantsPassword(login: string): Fault {
  return (request, response) => {
    if (request.headers.authorization === `Basic ${base64(login)}`) return false;
    response.setHeader('www-authenticate', 'Basic realm="registry"');
    sendJson(response, 401, {});
    return true;
  };
}

/** A registry that wants a token, and the token service that gives one for these logins. */
function wantsToken(realm: string, logins: readonly string[]): Fault {
  const { pathname } = new URL(realm);
  return (request, response) => {
    const { authorization = `Basic ${base64('anonymous')}` } = request.headers;
    if (request.url?.startsWith(pathname)) {
      const login = logins.find((one) => authorization === `Basic ${base64(one)}`);
      if (login === undefined) sendJson(response, 401, {});
      else sendJson(response, 200, { token: tokenOf(login), expires_in: 300 });
      return true;
    }
    if (logins.some((login) => authorization === `Bearer ${tokenOf(login)}`)) return false;
    response.setHeader('www-authenticate', `Bearer realm="${realm}",service="corp"`);
    sendJson(response, 401, {});
    return true;
  };
}
