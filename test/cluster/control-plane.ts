// The control plane of the test cluster: one machine without a kubelet. Beside Kubernetes' own servers it has
// the resolver of the Pods and, if asked for, an S3 server.

import { generateKeyPairSync } from 'node:crypto';
import { join } from 'node:path';
import type { Authority } from './authority.ts';
import { type Accounts, API_SERVER, kubeconfig, tokenFile } from './kubeconfig.ts';
import { API_PORT, API_SERVICE, CONTROL_PLANE, PUBLIC_DNS, S3_PORT, SERVICE_RANGE } from './layout.ts';
import type { SandboxFiles } from './sandbox.ts';

/** Who may write to the cluster's S3, and where; the endpoint is what Pods reach. */
export const S3 = {
  endpoint: `http://${CONTROL_PLANE}:${S3_PORT}`,
  accessKeyId: 'weir-test',
  secretAccessKey: 'weir-test-secret',
  bucket: 'images',
  region: 'us-east-1',
} as const;

export interface ControlPlaneOptions {
  /** The machine's own directory. */
  readonly directory: string;
  readonly authority: Authority;
  readonly accounts: Accounts;
  /** The `minio` command, when there is to be S3. */
  readonly minio: string | undefined;
}

const home = '/etc/kubernetes';
const etcd = { client: 'http://127.0.0.1:2379', peer: 'http://127.0.0.1:2380' };

export async function controlPlane(options: ControlPlaneOptions): Promise<SandboxFiles> {
  const { directory, authority, accounts, minio } = options;
  const { ca } = authority;
  const serving = await authority.issue('apiserver', '/CN=kube-apiserver', [
    ...['127.0.0.1', CONTROL_PLANE, API_SERVICE].map((address) => `IP:${address}`),
    ...['', '.default', '.default.svc', '.default.svc.cluster.local'].map((end) => `DNS:kubernetes${end}`),
  ]);
  const toKubelets = await authority.issue('to-kubelets', '/O=system:masters/CN=kube-apiserver', []);
  const { privateKey, publicKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const local = ['--bind-address=127.0.0.1', '--leader-elect=false', '--v=1'];
  return {
    files: {
      '/etc/hosts': `127.0.0.1 localhost\n${CONTROL_PLANE} control-plane\n`,
      '/etc/resolv.conf': `nameserver ${PUBLIC_DNS}\n`,
      [`${home}/admin.conf`]: kubeconfig(accounts.admin, ca),
      [`${home}/controllers.conf`]: kubeconfig(accounts.controllers, ca),
      [`${home}/scheduler.conf`]: kubeconfig(accounts.scheduler, ca),
      [`${home}/tokens.csv`]: tokenFile(accounts),
      [`${home}/admin.token`]: accounts.admin.token,
      [`${home}/service-accounts.key`]: privateKey,
      [`${home}/service-accounts.pub`]: publicKey,
    },
    services: {
      etcd: [
        'etcd',
        '--name=test',
        `--data-dir=${join(directory, 'etcd')}`,
        // It has to outlive nothing.
        '--unsafe-no-fsync',
        `--listen-client-urls=${etcd.client}`,
        `--advertise-client-urls=${etcd.client}`,
        `--listen-peer-urls=${etcd.peer}`,
        `--initial-advertise-peer-urls=${etcd.peer}`,
        `--initial-cluster=test=${etcd.peer}`,
        '--log-level=warn',
      ],
      'kube-apiserver': [
        'kube-apiserver',
        `--etcd-servers=${etcd.client}`,
        `--secure-port=${API_PORT}`,
        `--advertise-address=${CONTROL_PLANE}`,
        `--service-cluster-ip-range=${SERVICE_RANGE}`,
        '--allow-privileged=true',
        `--tls-cert-file=${serving.cert}`,
        `--tls-private-key-file=${serving.key}`,
        `--client-ca-file=${ca}`,
        `--kubelet-client-certificate=${toKubelets.cert}`,
        `--kubelet-client-key=${toKubelets.key}`,
        '--kubelet-preferred-address-types=InternalIP',
        `--token-auth-file=${home}/tokens.csv`,
        '--authorization-mode=Node,RBAC',
        '--service-account-issuer=https://kubernetes.default.svc',
        `--service-account-key-file=${home}/service-accounts.pub`,
        `--service-account-signing-key-file=${home}/service-accounts.key`,
        // There is no kube-proxy here: webhooks are called by the addresses of their Pods.
        '--enable-aggregator-routing=true',
        `--cert-dir=${join(directory, 'apiserver')}`,
        '--v=1',
      ],
      'kube-controller-manager': [
        'kube-controller-manager',
        `--kubeconfig=${home}/controllers.conf`,
        '--use-service-account-credentials=true',
        // The default of 20 requests a second is most of what a start would take.
        '--kube-api-qps=500',
        '--kube-api-burst=1000',
        `--service-account-private-key-file=${home}/service-accounts.key`,
        `--root-ca-file=${ca}`,
        `--cert-dir=${join(directory, 'controllers')}`,
        ...local,
      ],
      'kube-scheduler': [
        'kube-scheduler',
        `--kubeconfig=${home}/scheduler.conf`,
        `--cert-dir=${join(directory, 'scheduler')}`,
        ...local,
      ],
      dns: [
        'env',
        `NODE_EXTRA_CA_CERTS=${ca}`,
        process.execPath,
        join(import.meta.dirname, 'cluster-dns.ts'),
        API_SERVER,
        `${home}/admin.token`,
      ],
      ...(minio !== undefined && { s3: s3Command(minio, directory) }),
    },
  };
}

/** `DIRECTORY/s3` is its data; a directory in it is a bucket. */
function s3Command(minio: string, directory: string): string[] {
  return [
    'env',
    `HOME=${directory}`,
    `MINIO_ROOT_USER=${S3.accessKeyId}`,
    `MINIO_ROOT_PASSWORD=${S3.secretAccessKey}`,
    'MINIO_BROWSER=off',
    minio,
    'server',
    join(directory, 's3'),
    `--address=${CONTROL_PLANE}:${S3_PORT}`,
  ];
}
