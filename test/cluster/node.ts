// A node of the test cluster: containerd, kubelet and kube-proxy, with the paths of a real node.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf } from '../../process/file-problem.ts';
import { type Account, kubeconfig } from './kubeconfig.ts';
import { CONTROL_PLANE, nodeAddress, nodeName, POD_RANGE, PUBLIC_DNS, podRange } from './layout.ts';
import type { SandboxFiles } from './sandbox.ts';

export type ProxyMode = 'iptables' | 'nftables';

export interface NodeOptions {
  readonly number: number;
  /** The path of the authority's certificate. */
  readonly ca: string;
  readonly account: Account;
  readonly proxy: Account;
  readonly proxyMode: ProxyMode;
  /** The control group of all its Pods, as the machine names it. */
  readonly cgroup: string;
  /** Where the CNI plugins are. */
  readonly cni: string;
  /** What containerd's configuration says of registries; one directory of hosts.toml files if not told. */
  readonly registries?: string;
  /** Files of its own, content by path. */
  readonly files: Readonly<Record<string, string>>;
}

/** The image that every Pod's sandbox runs. */
export const SANDBOX_IMAGE = 'registry.k8s.io/pause:3.10.1';
/** What the machine's programs trust, and the node's do. */
export const CA_BUNDLE = '/etc/ssl/certs/ca-certificates.crt';
/** Environment variables that containerd gets when it starts, as a shell reads them; a node has none at first. */
export const CONTAINERD_ENVIRONMENT = '/etc/default/containerd';
const socket = 'unix:///run/containerd/containerd.sock';
const home = '/etc/kubernetes';

export async function node(options: NodeOptions): Promise<SandboxFiles> {
  const { number, ca, account, proxy } = options;
  return {
    files: {
      '/etc/hostname': `${nodeName(number)}\n`,
      '/etc/hosts': `127.0.0.1 localhost\n${nodeAddress(number)} ${nodeName(number)}\n`,
      '/etc/resolv.conf': `nameserver ${PUBLIC_DNS}\n`,
      [CA_BUNDLE]: (await ownBundle()) + (await readFile(ca, 'utf8')),
      [join(home, 'kubelet.conf')]: kubeconfig(account, ca),
      [join(home, 'proxy.conf')]: kubeconfig(proxy, ca),
      [join(home, 'kubelet.yaml')]: kubeletConfiguration(options),
      [join(home, 'proxy.yaml')]: proxyConfiguration(options),
      '/etc/containerd/config.toml': containerdConfiguration(options),
      '/etc/containerd/certs.d/.keep': '',
      '/etc/cni/net.d/10-test.conflist': networkConfiguration(number),
      ...options.files,
    },
    services: {
      // As a unit of systemd reads its environment from a file, proxies for the most part.
      containerd: [
        'sh',
        '-c',
        `set -a; [ ! -e ${CONTAINERD_ENVIRONMENT} ] || . ${CONTAINERD_ENVIRONMENT}; exec containerd`,
      ],
      kubelet: [
        'kubelet',
        `--config=${home}/kubelet.yaml`,
        `--kubeconfig=${home}/kubelet.conf`,
        `--hostname-override=${nodeName(number)}`,
        `--node-ip=${nodeAddress(number)}`,
        '--v=2',
      ],
      'kube-proxy': ['kube-proxy', `--config=${home}/proxy.yaml`, '--v=2'],
    },
  };
}

function containerdConfiguration({ cni, registries = ONE_DIRECTORY }: NodeOptions): string {
  return `version = 3
[plugins.'io.containerd.cri.v1.runtime']
# Lower than its own is what only a privileged root may set.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [${JSON.stringify(cni)}]
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '${SANDBOX_IMAGE}'
${registries}`;
}

const ONE_DIRECTORY = `[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '/etc/containerd/certs.d'
`;

function networkConfiguration(number: number): string {
  return JSON.stringify({
    cniVersion: '1.0.0',
    name: 'test',
    plugins: [
      {
        type: 'bridge',
        bridge: 'cni0',
        isGateway: true,
        hairpinMode: true,
        ipMasq: false,
        ipam: {
          type: 'host-local',
          ranges: [[{ subnet: podRange(number) }]],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
    ],
  });
}

function kubeletConfiguration({ ca, cgroup }: NodeOptions): string {
  return JSON.stringify({
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    failCgroupV1: false,
    failSwapOn: false,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: cgroup,
    containerRuntimeEndpoint: socket,
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: ca },
    },
    authorization: { mode: 'Webhook' },
    clusterDomain: 'cluster.local',
    clusterDNS: [CONTROL_PLANE],
    resolvConf: '/etc/resolv.conf',
    // A small machine, and full of other things.
    evictionHard: { 'memory.available': '100Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
    imageGCHighThresholdPercent: 100,
    serializeImagePulls: false,
    // What takes a node seconds is what a test waits for.
    nodeStatusUpdateFrequency: '4s',
    syncFrequency: '5s',
    oomScoreAdj: 0,
  });
}

function proxyConfiguration({ number, proxyMode }: NodeOptions): string {
  return JSON.stringify({
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode: proxyMode,
    clusterCIDR: POD_RANGE,
    hostnameOverride: nodeName(number),
    oomScoreAdj: 0,
    clientConnection: { kubeconfig: `${home}/proxy.conf` },
    // The kernel's own limits stay as the machine has them.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
    iptables: { localhostNodePorts: true },
  });
}

async function ownBundle(): Promise<string> {
  return readFile(CA_BUNDLE, 'utf8').catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error;
    return '';
  });
}
