// Kubernetes' API alone: etcd and kube-apiserver on loopback, without controllers and nodes. Objects are checked,
// admitted and kept as in a cluster; nothing of them runs.

import { generateKeyPairSync } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort } from '../containerd/port.ts';
import { provide } from '../tools/cache.ts';
import { type Child, start } from '../tools/child.ts';
import { run } from '../tools/command.ts';
import { goModule } from '../tools/go-module.ts';

export interface ApiServer {
  /** File for `--kubeconfig`, of somebody who may do everything. */
  readonly kubeconfig: string;
  /** Standard output of kubectl. @throws CommandError */
  kubectl(...args: readonly string[]): Promise<string>;
  stop(): Promise<void>;
}

const TOKEN = 'administrator';

/** One that answers. Its files go into the directory. */
export async function startApiServer(scratch: string): Promise<ApiServer> {
  const tools = await provide(goModule('kubernetes'));
  const directory = join(scratch, 'api-server');
  await mkdir(directory, { recursive: true });
  const etcd = await startEtcd(tools, directory);
  try {
    const port = await freePort();
    const server = await start(join(tools, 'kube-apiserver'), await serverFlags(directory, port, etcd.url), {
      ready: (child) => child.line(/Serving securely/),
    });
    const kubeconfig = join(directory, 'kubeconfig.yaml');
    await writeFile(kubeconfig, JSON.stringify(kubeconfigFor(port)));
    const kubectl = (...args: readonly string[]): Promise<string> =>
      run(join(tools, 'kubectl'), ['--kubeconfig', kubeconfig, ...args]);
    // What it makes for itself when it starts, such as the roles of RBAC, is there once it says so.
    await untilReady(kubectl, server);
    return {
      kubeconfig,
      kubectl,
      stop: async () => {
        await server.stop('SIGKILL');
        await etcd.child.stop('SIGKILL');
      },
    };
  } catch (error) {
    await etcd.child.stop('SIGKILL');
    throw error;
  }
}

async function startEtcd(tools: string, directory: string): Promise<{ child: Child; url: string }> {
  const [url, peers] = [`http://127.0.0.1:${await freePort()}`, `http://127.0.0.1:${await freePort()}`];
  const place = ['--data-dir', join(directory, 'etcd'), '--unsafe-no-fsync'];
  const clients = ['--listen-client-urls', url, '--advertise-client-urls', url];
  const cluster = ['--listen-peer-urls', peers, '--initial-advertise-peer-urls', peers];
  const child = await start(
    join(tools, 'etcd'),
    [...place, ...clients, ...cluster, '--initial-cluster', `default=${peers}`],
    { ready: (running) => running.line(/ready to serve client requests/) },
  );
  return { child, url };
}

async function serverFlags(directory: string, port: number, etcd: string): Promise<string[]> {
  const key = join(directory, 'service-account.key');
  const tokens = join(directory, 'tokens.csv');
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  await writeFile(key, privateKey.export({ type: 'sec1', format: 'pem' }));
  await writeFile(tokens, `${TOKEN},administrator,1,"system:masters"\n`);
  return [
    `--etcd-servers=${etcd}`,
    '--bind-address=127.0.0.1',
    `--secure-port=${port}`,
    `--cert-dir=${join(directory, 'certificates')}`,
    '--authorization-mode=RBAC',
    `--token-auth-file=${tokens}`,
    '--service-cluster-ip-range=10.96.0.0/16,fd00:96::/108',
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-key-file=${key}`,
    `--service-account-signing-key-file=${key}`,
  ];
}

function kubeconfigFor(port: number): object {
  const cluster = { server: `https://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true };
  return {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster }],
    users: [{ name: 'administrator', user: { token: TOKEN } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'administrator' } }],
    'current-context': 'test',
  };
}

async function untilReady(kubectl: ApiServer['kubectl'], server: Child): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    server.mustRun();
    const answer = await kubectl('get', '--raw', '/readyz').catch(() => '');
    if (answer === 'ok') return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`kube-apiserver did not get ready; it wrote\n${server.lines.slice(-20).join('\n')}`);
}
