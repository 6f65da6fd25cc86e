import assert from 'node:assert/strict';
import { mkdir, symlink, unlink, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import type { CriAnswer } from '../../agent/runtimes/ask-cri.ts';
import { OTHER_RUNTIMES } from '../../agent/runtimes/distributions.ts';
import { type NodeSight, reasonOf } from '../../agent/runtimes/node-sight.ts';
import { ownedOf } from '../../agent/runtimes/owned-hosts.ts';
import { seeNode } from '../../agent/runtimes/see-node.ts';
import { watchNode } from '../../agent/runtimes/watch-node.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { configOf } from './node-files.ts';

/** By path of the node; `-> x` is a symbolic link to x, and a path that ends in a slash a directory. */
type Tree = Readonly<Record<string, string>>;

async function plant(t: TestContext, tree: Tree): Promise<string> {
  const root = await makeScratch();
  t.after(() => removeScratch(root));
  for (const [path, text] of Object.entries(tree)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    if (path.endsWith('/')) await mkdir(join(root, path), { recursive: true });
    else if (text.startsWith('-> ')) await symlink(text.slice(3), join(root, path));
    else await writeFile(join(root, path), text);
  }
  return root;
}

async function see(t: TestContext, tree: Tree, answer?: CriAnswer): Promise<NodeSight> {
  const root = await plant(t, tree);
  return answer === undefined ? seeNode({ root }) : seeNode({ root, askCri: () => Promise.resolve(answer) });
}

const containerd = (version: string): CriAnswer => ({ name: 'containerd', version });
const NO_PROC =
  'the processes of the node cannot be seen (no /proc below its root): its files alone were read';
const TRAP =
  'the list trap: pulls through CRI take the list of directories for one path, so that directory is written as well';
const SOCKET = '/run/containerd/containerd.sock';
const CONFIG = '/etc/containerd/config.toml';
const CERTS = '/etc/containerd/certs.d';
const LIST = '/etc/containerd/certs.d:/etc/docker/certs.d';
const HERE = 'where this distribution has it';

const V2 = '[plugins."io.containerd.grpc.v1.cri"';
const V3 = "[plugins.'io.containerd.cri.v1.images'";
const v2 = (path: string): string => `version = 2\n${V2}.registry]\n  config_path = "${path}"\n`;
const v3 = (path: string): string => `version = 3\n${V3}.registry]\n  config_path = "${path}"\n`;

const nothing = {
  version: undefined,
  socket: undefined,
  configFiles: [],
  configPath: undefined,
  localPull: undefined,
  certsDirs: [],
  laterDirs: [],
  ownedHosts: [],
  missingConfigPath: undefined,
  notes: [NO_PROC],
};

/** Each distribution by a few of its files, and all that is to be seen of it. */
const DISTRIBUTIONS: Readonly<
  Record<string, { readonly tree: Tree; readonly answer?: CriAnswer; readonly sight: NodeSight }>
> = {
  'kubeadm with containerd 1.7': {
    tree: {
      '/etc/os-release': 'ID=debian\nVERSION_ID="12"\n',
      '/var/lib/kubelet/kubeadm-flags.env':
        'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///var/run/containerd/containerd.sock --x"\n',
      [CONFIG]: v2(CERTS),
      [SOCKET]: '',
    },
    answer: containerd('1.7.27'),
    sight: {
      ...nothing,
      distribution: { value: 'kubeadm', source: '/var/lib/kubelet/kubeadm-flags.env' },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: '1.7.27', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: '/var/lib/kubelet/kubeadm-flags.env:1' },
      configFiles: [CONFIG],
      configPath: { value: CERTS, source: `${CONFIG}:3` },
      certsDirs: [CERTS],
      verdict: { kind: 'configurable' },
    },
  },
  'kubeadm with containerd 2.3 as it comes': {
    tree: {
      '/var/lib/kubelet/config.yaml':
        'a: 1\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n',
      '/etc/kubernetes/kubelet.conf': '',
      [CONFIG]: `version = 4\nimports = ['/etc/containerd/conf.d/*.toml']\n${V3}.registry]\n  config_path = ''\n`,
      '/etc/containerd/conf.d/': '',
    },
    answer: containerd('v2.3.7'),
    sight: {
      ...nothing,
      distribution: { value: 'kubeadm', source: '/etc/kubernetes/kubelet.conf' },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: 'v2.3.7', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: '/var/lib/kubelet/config.yaml:2' },
      configFiles: [CONFIG],
      configPath: { value: LIST, source: `the default of containerd v2.3.7 (empty in ${CONFIG}:4)` },
      certsDirs: [CERTS, LIST],
      verdict: { kind: 'configurable' },
      notes: [NO_PROC, TRAP],
    },
  },
  k3s: {
    tree: {
      '/var/lib/rancher/k3s/agent/etc/containerd/config.toml': v3(
        '/var/lib/rancher/k3s/agent/etc/containerd/certs.d',
      ),
      '/var/lib/rancher/k3s/agent/etc/containerd/certs.d/ghcr.io/hosts.toml':
        '# File generated by k3s. DO NOT EDIT.\nserver = "https://ghcr.io/v2"\n[host]\n',
      '/var/lib/rancher/k3s/agent/etc/containerd/certs.d/_default/hosts.toml':
        '# File generated by k3s. DO NOT EDIT.\n[host]\n',
      '/var/lib/rancher/k3s/agent/etc/containerd/certs.d/quay.io/hosts.toml': '# mine\n[host]\n',
      '/run/k3s/containerd/containerd.sock': '',
    },
    answer: containerd('v2.1.5-k3s1'),
    sight: {
      ...nothing,
      distribution: { value: 'k3s', source: '/var/lib/rancher/k3s/agent' },
      runtime: { value: 'containerd', source: '/run/k3s/containerd/containerd.sock' },
      version: { value: 'v2.1.5-k3s1', source: 'containerd, on /run/k3s/containerd/containerd.sock' },
      socket: { value: '/run/k3s/containerd/containerd.sock', source: HERE },
      configFiles: ['/var/lib/rancher/k3s/agent/etc/containerd/config.toml'],
      configPath: {
        value: '/var/lib/rancher/k3s/agent/etc/containerd/certs.d',
        source: '/var/lib/rancher/k3s/agent/etc/containerd/config.toml:3',
      },
      certsDirs: ['/var/lib/rancher/k3s/agent/etc/containerd/certs.d'],
      ownedHosts: [
        {
          host: 'ghcr.io',
          reason:
            '/var/lib/rancher/k3s/agent/etc/containerd/certs.d/ghcr.io/hosts.toml is written by k3s, from registries.yaml: add the mirror there, or take the host out of it and restart k3s',
        },
      ],
      verdict: { kind: 'configurable' },
    },
  },
  'RKE2, where k3s was before': {
    tree: {
      '/var/lib/rancher/k3s/agent/': '',
      '/var/lib/rancher/rke2/agent/etc/containerd/config.toml': v2(
        '/var/lib/rancher/rke2/agent/etc/containerd/certs.d',
      ),
      '/run/k3s/containerd/containerd.sock': '',
    },
    answer: containerd('v1.7.23-k3s2'),
    sight: {
      ...nothing,
      distribution: { value: 'RKE2', source: '/var/lib/rancher/rke2/agent' },
      runtime: { value: 'containerd', source: '/run/k3s/containerd/containerd.sock' },
      version: { value: 'v1.7.23-k3s2', source: 'containerd, on /run/k3s/containerd/containerd.sock' },
      socket: { value: '/run/k3s/containerd/containerd.sock', source: HERE },
      configFiles: ['/var/lib/rancher/rke2/agent/etc/containerd/config.toml'],
      configPath: {
        value: '/var/lib/rancher/rke2/agent/etc/containerd/certs.d',
        source: '/var/lib/rancher/rke2/agent/etc/containerd/config.toml:3',
      },
      certsDirs: ['/var/lib/rancher/rke2/agent/etc/containerd/certs.d'],
      verdict: { kind: 'configurable' },
    },
  },
  MicroK8s: {
    tree: {
      '/var/snap/microk8s/current': '-> 8511',
      '/var/snap/microk8s/8511/args/containerd.toml': v2('/var/snap/microk8s/8511/args/certs.d'),
      '/var/snap/microk8s/8511/args/certs.d/docker.io/hosts.toml': 'server = "https://docker.io"\n',
      '/var/snap/microk8s/common/run/containerd.sock': '',
    },
    answer: containerd('v1.6.36'),
    sight: {
      ...nothing,
      distribution: { value: 'MicroK8s', source: '/var/snap/microk8s/current' },
      runtime: { value: 'containerd', source: '/var/snap/microk8s/common/run/containerd.sock' },
      version: { value: 'v1.6.36', source: 'containerd, on /var/snap/microk8s/common/run/containerd.sock' },
      socket: { value: '/var/snap/microk8s/common/run/containerd.sock', source: HERE },
      configFiles: ['/var/snap/microk8s/current/args/containerd.toml'],
      configPath: {
        value: '/var/snap/microk8s/8511/args/certs.d',
        source: '/var/snap/microk8s/current/args/containerd.toml:3',
      },
      certsDirs: ['/var/snap/microk8s/8511/args/certs.d'],
      verdict: { kind: 'configurable' },
    },
  },
  'k0s without a drop-in': {
    tree: {
      '/etc/k0s/containerd.toml': 'version = 2\nimports = ["/run/k0s/containerd-cri.toml"]\n',
      '/run/k0s/containerd-cri.toml':
        'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "x"\n',
      '/run/k0s/containerd.sock': '',
    },
    answer: containerd('v1.7.27'),
    sight: {
      ...nothing,
      distribution: { value: 'k0s', source: '/run/k0s/containerd.sock' },
      runtime: { value: 'containerd', source: '/run/k0s/containerd.sock' },
      version: { value: 'v1.7.27', source: 'containerd, on /run/k0s/containerd.sock' },
      socket: { value: '/run/k0s/containerd.sock', source: HERE },
      configFiles: ['/etc/k0s/containerd.toml', '/run/k0s/containerd-cri.toml'],
      missingConfigPath: CERTS,
      verdict: {
        kind: 'fallback',
        reason:
          'no config_path is set in /etc/k0s/containerd.toml, and containerd v1.7.27 has no default for it',
        remedy:
          'Put a file with config_path = "/etc/containerd/certs.d" into /etc/k0s/containerd.d (version 3 of the configuration from k0s 1.36 on, before that version 2): k0s sees it and restarts containerd.',
      },
    },
  },
  'k0s with one': {
    tree: {
      '/etc/k0s/containerd.toml': 'version = 2\nimports = ["/run/k0s/containerd-cri.toml"]\n',
      '/run/k0s/containerd-cri.toml': v2('/etc/k0s/certs.d'),
      '/run/k0s/containerd.sock': '',
    },
    sight: {
      ...nothing,
      distribution: { value: 'k0s', source: '/run/k0s/containerd.sock' },
      runtime: { value: 'containerd', source: '/run/k0s/containerd.sock' },
      socket: { value: '/run/k0s/containerd.sock', source: HERE },
      configFiles: ['/etc/k0s/containerd.toml', '/run/k0s/containerd-cri.toml'],
      configPath: { value: '/etc/k0s/certs.d', source: '/run/k0s/containerd-cri.toml:3' },
      certsDirs: ['/etc/k0s/certs.d'],
      verdict: { kind: 'configurable' },
    },
  },
  kind: {
    tree: {
      '/kind/version': 'v1.36.0',
      '/etc/kubernetes/kubelet.conf': '',
      [CONFIG]: v3(CERTS),
      [SOCKET]: '',
    },
    answer: containerd('v2.1.3'),
    sight: {
      ...nothing,
      distribution: { value: 'kind', source: '/kind' },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: 'v2.1.3', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: HERE },
      configFiles: [CONFIG],
      configPath: { value: CERTS, source: `${CONFIG}:3` },
      certsDirs: [CERTS],
      verdict: { kind: 'configurable' },
    },
  },
  'minikube in a container, which has the files of kind': {
    tree: {
      '/kind/product_name': 'kind',
      '/var/lib/minikube/': '',
      [CONFIG]: v2(CERTS),
      [`${CERTS}/docker.io/hosts.toml`]: 'server = "https://registry-1.docker.io"\n',
      [SOCKET]: '',
    },
    answer: containerd('1.7.27'),
    sight: {
      ...nothing,
      distribution: { value: 'minikube', source: '/var/lib/minikube' },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: '1.7.27', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: HERE },
      configFiles: [CONFIG],
      configPath: { value: CERTS, source: `${CONFIG}:3` },
      certsDirs: [CERTS],
      verdict: { kind: 'configurable' },
    },
  },
  'EKS on AL2023': {
    tree: {
      '/etc/os-release': 'NAME="Amazon Linux"\nID="amzn"\nVERSION_ID="2023"\n',
      '/etc/eks/nodeadm/': '',
      '/etc/kubernetes/kubelet/config.json':
        '{\n  "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock"\n}\n',
      [CONFIG]: `version = 3\n${V3}]\ndiscard_unpacked_layers = true\n${V3}.registry]\nconfig_path = "${LIST}"\n`,
    },
    answer: containerd('2.2.1'),
    sight: {
      ...nothing,
      distribution: {
        value: 'EKS (AL2023)',
        source: '/etc/os-release:2 (ID=amzn), /etc/os-release:3 (VERSION_ID=2023), /etc/eks',
      },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: '2.2.1', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: '/etc/kubernetes/kubelet/config.json:2' },
      configFiles: [CONFIG],
      configPath: { value: LIST, source: `${CONFIG}:5` },
      localPull: { value: 'discard_unpacked_layers', source: `${CONFIG}:3` },
      certsDirs: [CERTS],
      laterDirs: ['/etc/docker/certs.d'],
      verdict: { kind: 'configurable' },
    },
  },
  AKS: {
    tree: {
      '/etc/kubernetes/azure.json': '{}',
      '/etc/default/kubelet':
        'KUBELET_FLAGS=--container-runtime-endpoint=unix:///run/containerd/containerd.sock\n',
      [CONFIG]: v2(CERTS),
      [`${CERTS}/mcr.microsoft.com/hosts.toml`]: '[host."https://mcr.example"]\n',
    },
    answer: containerd('1.7.28-1'),
    sight: {
      ...nothing,
      distribution: { value: 'AKS', source: '/etc/kubernetes/azure.json' },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: '1.7.28-1', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: '/etc/default/kubelet:1' },
      configFiles: [CONFIG],
      configPath: { value: CERTS, source: `${CONFIG}:3` },
      certsDirs: [CERTS],
      verdict: { kind: 'configurable' },
    },
  },
  GKE: {
    tree: { '/usr/lib/os-release': 'ID=cos\n', [CONFIG]: v2('/etc/containerd/hosts.d'), [SOCKET]: '' },
    answer: containerd('2.0.6'),
    sight: {
      ...nothing,
      distribution: { value: 'GKE (Container-Optimized OS)', source: '/usr/lib/os-release:1 (ID=cos)' },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: '2.0.6', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: HERE },
      configFiles: [CONFIG],
      configPath: { value: '/etc/containerd/hosts.d', source: `${CONFIG}:3` },
      certsDirs: ['/etc/containerd/hosts.d'],
      verdict: { kind: 'configurable' },
      notes: [
        '/etc does not survive a restart of the node: the agent writes its files again after one',
        NO_PROC,
      ],
    },
  },
  Bottlerocket: {
    tree: { '/etc/os-release': 'ID=bottlerocket\n', [SOCKET]: '' },
    answer: containerd('1.7.28+bottlerocket'),
    sight: {
      ...nothing,
      distribution: { value: 'Bottlerocket', source: '/etc/os-release:1 (ID=bottlerocket)' },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: '1.7.28+bottlerocket', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: HERE },
      verdict: {
        kind: 'unsupported',
        reason: 'Bottlerocket makes /etc/containerd anew, in memory, from its API at every start',
        remedy: 'Name the mirror in settings.container-registry.mirrors of its API.',
      },
    },
  },
  Talos: {
    tree: { '/etc/os-release': 'NAME="Talos"\nID=talos\n', [SOCKET]: '' },
    sight: {
      ...nothing,
      distribution: { value: 'Talos', source: '/etc/os-release:2 (ID=talos)' },
      runtime: { value: 'containerd', source: SOCKET },
      socket: { value: SOCKET, source: HERE },
      verdict: {
        kind: 'unsupported',
        reason: 'Talos removes directories that are not its own from /etc/cri/conf.d/hosts',
        remedy: 'Name the mirror in a RegistryMirrorConfig document of the machine configuration.',
      },
    },
  },
  OpenShift: {
    tree: { '/etc/os-release': 'ID="rhcos"\n', '/run/crio/crio.sock': '' },
    answer: { name: 'cri-o', version: '1.33.4' },
    sight: {
      ...nothing,
      distribution: { value: 'OpenShift', source: '/etc/os-release:1 (ID=rhcos)' },
      runtime: { value: 'cri-o', source: '/run/crio/crio.sock' },
      version: { value: '1.33.4', source: 'cri-o, on /run/crio/crio.sock' },
      socket: { value: '/run/crio/crio.sock', source: HERE },
      verdict: {
        kind: 'unsupported',
        reason: 'the Machine Config Operator owns the files below /etc/containers and puts its own back',
        remedy: 'Name the mirror in an ImageTagMirrorSet (ITMS) and an ImageDigestMirrorSet (IDMS).',
      },
    },
  },
  'kubeadm with CRI-O': {
    tree: {
      '/var/lib/kubelet/kubeadm-flags.env':
        'X="--container-runtime-endpoint=unix:///var/run/crio/crio.sock"\n',
      '/run/crio/crio.sock': '',
    },
    sight: {
      ...nothing,
      distribution: { value: 'CRI-O', source: '/run/crio/crio.sock' },
      runtime: { value: 'cri-o', source: '/run/crio/crio.sock' },
      socket: { value: '/run/crio/crio.sock', source: '/var/lib/kubelet/kubeadm-flags.env:1' },
      verdict: { kind: 'configurable' },
      notes: [...nothing.notes, OTHER_RUNTIMES['cri-o']],
    },
  },
  'Docker with cri-dockerd, whose containerd has no CRI': {
    tree: {
      '/var/lib/kubelet/kubeadm-flags.env': 'X="--container-runtime-endpoint=unix:///run/cri-dockerd.sock"\n',
      '/run/cri-dockerd.sock': '',
      [SOCKET]: '',
      [CONFIG]: 'disabled_plugins = ["cri"]\n',
    },
    sight: {
      ...nothing,
      distribution: { value: 'Docker with cri-dockerd', source: '/run/cri-dockerd.sock' },
      runtime: { value: 'docker', source: '/run/cri-dockerd.sock' },
      socket: { value: '/run/cri-dockerd.sock', source: '/var/lib/kubelet/kubeadm-flags.env:1' },
      verdict: { kind: 'configurable' },
      notes: [...nothing.notes, OTHER_RUNTIMES.docker],
    },
  },
  'one machine with containerd': {
    tree: { [CONFIG]: v2(CERTS), [SOCKET]: '' },
    answer: containerd('1.6.20~ds1'),
    sight: {
      ...nothing,
      distribution: { value: 'plain containerd', source: 'no sign of another' },
      runtime: { value: 'containerd', source: SOCKET },
      version: { value: '1.6.20~ds1', source: `containerd, on ${SOCKET}` },
      socket: { value: SOCKET, source: HERE },
      configFiles: [CONFIG],
      configPath: { value: CERTS, source: `${CONFIG}:3` },
      certsDirs: [CERTS],
      verdict: { kind: 'configurable' },
    },
  },
};

suite('each distribution is seen for what it is', () => {
  for (const [name, { tree, answer, sight }] of Object.entries(DISTRIBUTIONS))
    test(name, async (t) => assert.deepEqual(await see(t, tree, answer), sight));
});

/** What stands in containerd's files, and what comes of it. */
interface Case {
  readonly files: Tree;
  readonly version?: string;
  readonly dirs?: readonly string[];
  /** Why not. */
  readonly reason?: RegExp;
  readonly remedy?: RegExp;
  readonly notes?: readonly RegExp[];
  readonly missingConfigPath?: string;
}
const MIRRORS = `${V2}.registry.mirrors."docker.io"]\nendpoint = ["http://m"]\n`;
const CASES: Readonly<Record<string, Case>> = {
  'no configuration file, before 2.2': {
    files: {},
    version: '2.1.4',
    reason:
      /^no config_path is set in \/etc\/containerd\/config\.toml, and containerd 2\.1\.4 has no default/,
    remedy: /^Set config_path = "\/etc\/containerd\/certs\.d" in \/etc\/containerd\/config\.toml and restart/,
    notes: [/is not there: containerd goes by its defaults/],
    missingConfigPath: CERTS,
  },
  'no configuration file, since 2.2': {
    files: {},
    version: '2.2.0',
    dirs: [CERTS, LIST],
    notes: [/is not there/, /list trap/],
  },
  'a list of 1.7, which splits it': { files: { [CONFIG]: v2('/a/:/b') }, version: '1.7.1', dirs: ['/a/'] },
  'a list of 2.0, which splits it': { files: { [CONFIG]: v3('/a:/b') }, version: '2.0.0', dirs: ['/a'] },
  'a list of 2.1, which does not': {
    files: { [CONFIG]: v3('/a:/b') },
    version: '2.1.0',
    dirs: ['/a', '/a:/b'],
    notes: [/list trap/],
  },
  'a list of a version that nobody tells': {
    files: { [CONFIG]: v3('/a:/b') },
    dirs: ['/a', '/a:/b'],
    notes: [/the version is not known/],
  },
  'no path, of a version that nobody tells': {
    files: { [CONFIG]: 'version = 3\n' },
    reason: /containerd's version, which decides what holds then, is not known/,
  },
  'no path, of a version that only the newest read': {
    files: { [CONFIG]: 'version = 4\n' },
    dirs: [CERTS, LIST],
    notes: [/list trap/],
  },
  'the version of a Debian package': {
    files: {
      '/var/lib/dpkg/status':
        'Package: containers\nStatus: install ok installed\nVersion: 9.9\n\nPackage: containerd\nStatus: install ok installed\nPriority: optional\nVersion: 1.6.20~ds1-1+deb12u1\n',
      [CONFIG]: v2('/a:/b'),
    },
    dirs: ['/a'],
  },
  'the version of a Debian package, with another containerd that is run first': {
    files: {
      '/var/lib/dpkg/status': 'Package: containerd\nStatus: install ok installed\nVersion: 1.6.20\n',
      '/usr/local/bin/containerd': '',
      [CONFIG]: v2('/a:/b'),
    },
    dirs: ['/a', '/a:/b'],
    notes: [/the version is not known/],
  },
  'mirrors, and no path': {
    files: { [CONFIG]: `version = 2\n${MIRRORS}` },
    version: '1.7.0',
    reason:
      /^registries are configured by registry\.mirrors in \/etc\/containerd\/config\.toml:2, with which config_path would keep/,
    remedy: /^Say the same in hosts\.toml files/,
  },
  'mirrors, and no path, where there is a default': {
    files: { [CONFIG]: `version = 2\n${MIRRORS}` },
    version: '2.3.0',
    reason: /^registries are configured by registry\.mirrors/,
  },
  'mirrors and a path': {
    files: { [CONFIG]: `${v2('/a')}${MIRRORS}` },
    version: '1.7.0',
    reason:
      /^registry\.mirrors \(\/etc\/containerd\/config\.toml:4\) together with config_path \(\/etc\/containerd\/config\.toml:3\) keeps the CRI plugin from loading/,
  },
  'certificates of a registry and a path, in 1.7': {
    files: { [CONFIG]: `${v2('/a')}${V2}.registry.configs."x.io".tls]\nca_file = "y"\n` },
    version: '1.7.0',
    reason: /^registry\.configs\.x\.io\.tls \(\S+:4\) together with config_path/,
  },
  'credentials of a registry and a path': {
    files: { [CONFIG]: `${v2('/a')}${V2}.registry.configs."x.io".auth]\nusername = "y"\n` },
    version: '1.7.0',
    dirs: ['/a'],
  },
  'credentials of a registry, which keep 2.2 from the trap': {
    files: { [CONFIG]: `version = 3\n${V3}.registry.configs."x.io".auth]\nusername = "y"\n` },
    version: '2.2.0',
    dirs: [CERTS],
  },
  'no TOML': {
    files: { [CONFIG]: `version = 2\n${V2}.registry]\nconfig_path "/a"\n` },
    version: '1.7.0',
    reason: /would not start.*\/etc\/containerd\/config\.toml:3: not TOML/,
    remedy: /^Correct it/,
  },
  'an import that is not there': {
    files: { [CONFIG]: 'imports = ["/etc/more.toml"]\n' },
    version: '1.7.0',
    reason: /imports \/etc\/more\.toml, which is not there/,
  },
  'a path that is no text': {
    files: { [CONFIG]: `version = 2\n${V2}.registry]\nconfig_path = 3\n` },
    version: '1.7.0',
    reason: /config\.toml:3: registry\.config_path:/,
  },
  'a path that leads nowhere in particular': {
    files: { [CONFIG]: v2('certs.d') },
    version: '1.7.0',
    reason: /config_path "certs\.d" \(\S+:3\) is no absolute path/,
  },
  'the CRI plugin switched off': {
    files: { [CONFIG]: 'disabled_plugins = ["cri"]\n' },
    version: '1.7.0',
    reason: /switched off in \/etc\/containerd\/config\.toml:1$/,
  },
  'a version that this containerd does not read': {
    files: { [CONFIG]: `version = 4\n` },
    version: '2.2.0',
    reason: /config\.toml:1: containerd 2\.2\.0 does not read version 4/,
  },
  'a drop-in of 1.7, which takes the whole plugin': {
    files: {
      [CONFIG]: `version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n${V2}.registry]\nconfig_path = "/a"\n`,
      '/etc/containerd/conf.d/x.toml': `version = 2\n${V2}]\nsandbox_image = "y"\n`,
    },
    version: '1.7.0',
    reason: /no config_path is set/,
    missingConfigPath: CERTS,
  },
  'the same of 2.0, which merges': {
    files: {
      [CONFIG]: `version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n${V2}.registry]\nconfig_path = "/a"\n`,
      '/etc/containerd/conf.d/x.toml': `version = 2\n${V2}]\nsandbox_image = "y"\n`,
    },
    version: '2.0.0',
    dirs: ['/a'],
  },
};

suite("containerd's files are read as it reads them", () => {
  for (const [
    name,
    { files, version, dirs = [], reason, remedy, notes = [], missingConfigPath },
  ] of Object.entries(CASES))
    test(name, async (t) => {
      const sight = await see(
        t,
        { [SOCKET]: '', ...files },
        version === undefined ? undefined : containerd(version),
      );
      assert.deepEqual(sight.certsDirs, dirs);
      assert.equal(sight.missingConfigPath, missingConfigPath);
      assert.equal(sight.verdict.kind, reason === undefined ? 'configurable' : 'fallback');
      if (sight.verdict.kind === 'configurable') assert.equal(reasonOf(sight), undefined);
      else {
        assert.match(sight.verdict.reason, reason ?? /never/);
        assert.match(sight.verdict.remedy, remedy ?? /./);
        assert.equal(reasonOf(sight), `${sight.verdict.reason}. ${sight.verdict.remedy}`);
      }
      const more = sight.notes.filter((note) => note !== NO_PROC);
      assert.equal(more.length, notes.length, more.join('\n'));
      for (const [index, note] of notes.entries()) assert.match(more[index] ?? '', note);
    });
});

/** A process as /proc shows it, which began so many seconds after the machine. */
function process(pid: number, args: readonly string[], seconds = 100, namespaces = `${pid}`): Tree {
  const fields = ['S', ...Array.from({ length: 18 }, () => '0'), String(seconds * 100), '0'];
  return {
    [`/proc/${pid}/cmdline`]: args.map((arg) => `${arg}\0`).join(''),
    [`/proc/${pid}/stat`]: `${pid} (a ) name) ${fields.join(' ')}\n`,
    [`/proc/${pid}/status`]: `Name:\tx\nNSpid:\t${namespaces}\n`,
  };
}
/** Later than any file of these tests was written. */
const BOOT = 4_000_000_000;
const proc = { '/proc/stat': `cpu 1 2 3\nbtime ${BOOT}\n` };

suite('where the processes of the node are to be seen', () => {
  test('the configuration of the running containerd is the one that is read', async (t) => {
    const sight = await see(t, {
      ...proc,
      ...process(7, [
        '/usr/bin/kubelet',
        '--container-runtime-endpoint',
        'unix:///run/containerd/containerd.sock',
      ]),
      ...process(8, ['/usr/bin/containerd', '--config=/opt/containerd.toml']),
      ...process(9, ['containerd', '--config', '/var/run/docker/containerd/containerd.toml']),
      [CONFIG]: v2('/wrong'),
      '/opt/containerd.toml': v2('/right'),
    });
    assert.deepEqual(sight.configPath, { value: '/right', source: '/opt/containerd.toml:3' });
    assert.deepEqual(sight.socket, { value: SOCKET, source: 'the command line of process 7' });
    assert.deepEqual(sight.notes, []);
  });

  test('one of several is the one at the socket of the kubelet', async (t) => {
    const sight = await see(t, {
      ...proc,
      ...process(8, ['containerd', '--config', '/opt/other.toml', '--address', '/run/other.sock']),
      ...process(9, ['containerd', '-c', '/opt/ours.toml', '-a', SOCKET]),
      '/opt/other.toml': v2('/other'),
      '/opt/ours.toml': v2('/ours'),
      [SOCKET]: '',
    });
    assert.deepEqual(sight.certsDirs, ['/ours']);
  });

  test('one in a container is none of the node', async (t) => {
    const sight = await see(t, {
      ...proc,
      ...process(8, ['containerd', '--config', '/in/a/pod.toml'], 100, '8\t1'),
      [CONFIG]: v2(CERTS),
      [SOCKET]: '',
    });
    assert.deepEqual(sight.certsDirs, [CERTS]);
    assert.deepEqual(sight.notes, ['no containerd runs on the node, as far as its /proc shows']);
  });

  test('what is left of k3s is not taken for what runs', async (t) => {
    const sight = await see(t, {
      ...proc,
      ...process(8, ['containerd']),
      '/var/lib/rancher/k3s/agent/etc/containerd/config.toml': v2('/k3s'),
      '/etc/kubernetes/kubelet.conf': '',
      [CONFIG]: v2(CERTS),
      [SOCKET]: '',
    });
    assert.equal(sight.distribution.value, 'kubeadm');
    assert.deepEqual(sight.certsDirs, [CERTS]);
  });

  test('k3s is told by the configuration with which its containerd was started', async (t) => {
    const config = '/var/lib/rancher/k3s/agent/etc/containerd/config.toml';
    const sight = await see(t, {
      ...proc,
      ...process(8, ['containerd', '-c', config]),
      '/etc/kubernetes/kubelet.conf': '',
      [config]: v2('/k3s'),
      [CONFIG]: v2(CERTS),
      [SOCKET]: '',
    });
    assert.equal(sight.distribution.value, 'k3s');
    assert.deepEqual(sight.certsDirs, ['/k3s']);
  });

  test('a file that was changed after the start is told', async (t) => {
    const root = await plant(t, {
      ...proc,
      ...process(8, ['containerd']),
      [CONFIG]: v2(CERTS),
      [SOCKET]: '',
    });
    for (const [seconds, notes] of [
      [99, []],
      [101, []],
      [
        200,
        [
          `${CONFIG} was changed after containerd (process 8) started, which goes by what it said before until it is restarted`,
        ],
      ],
    ] as const) {
      await utimes(join(root, CONFIG), BOOT + seconds, BOOT + seconds);
      assert.deepEqual((await seeNode({ root })).notes, notes);
    }
  });
});

suite('what the runtime itself says', () => {
  test('counts more than its files', async (t) => {
    const tree = { [CONFIG]: v2(CERTS), [SOCKET]: '' };
    const other = await see(t, tree, { ...containerd('1.7.1'), configPath: '/running' });
    assert.deepEqual(other.configPath, { value: '/running', source: `containerd, on ${SOCKET}` });
    assert.deepEqual(other.certsDirs, ['/running']);
    assert.match(
      other.notes.at(-1) ?? '',
      /goes by config_path "\/running", and its files say "\/etc\/containerd\/certs\.d"/,
    );
    const none = await see(t, tree, { ...containerd('1.7.1'), configPath: '' });
    assert.match(
      reasonOf(none) ?? '',
      /config\.toml:3, and the running containerd does not go by it yet\. Restart/,
    );
    const same = await see(t, tree, { ...containerd('1.7.1'), configPath: CERTS });
    assert.deepEqual(same.notes, [NO_PROC]);
  });

  test('is missed, and told so, where it does not answer', async (t) => {
    const root = await plant(t, { [CONFIG]: v2(CERTS), [SOCKET]: '' });
    const sight = await seeNode({ root, askCri: () => Promise.reject(new Error('connection refused')) });
    assert.equal(sight.verdict.kind, 'configurable');
    assert.equal(sight.version, undefined);
    assert.ok(sight.notes.includes(`the runtime does not answer on ${SOCKET}: connection refused`));
  });
});

test('a directory where the file should be is a reason, not a failure', async (t) => {
  const root = await plant(t, { [`${CONFIG}/`]: '', [SOCKET]: '' });
  assert.match(reasonOf(await seeNode({ root })) ?? '', /\/etc\/containerd\/config\.toml is no regular file/);
});

test('hosts that belong to the distribution are left to it, and no others', () => {
  const config = configOf('upstreams: { ghcr.io: {}, quay.io: {} }');
  const sight = DISTRIBUTIONS['k3s']?.sight;
  assert.ok(sight !== undefined);
  assert.deepEqual(
    ownedOf(config, sight).map(({ host }) => host),
    ['ghcr.io'],
  );
});

test('a watch tells of what changed on the node, and goes on after failures and while the runtime is away', async (t) => {
  const root = await plant(t, { [CONFIG]: 'version = 2\n', [SOCKET]: '' });
  const changes: string[] = [];
  const errors = Promise.withResolvers<unknown>();
  let next = Promise.withResolvers<void>();
  const missed = Promise.withResolvers<void>();
  let isAway = false;
  let misses = 0;
  const watch = await watchNode({
    root,
    askCri: () => {
      if (!isAway) return Promise.resolve(containerd('1.7.1'));
      misses += 1;
      if (misses === 3) missed.resolve();
      return Promise.reject(new Error('away'));
    },
    everyMs: 5,
    onChange: ({ certsDirs }) => {
      changes.push(...certsDirs);
      next.resolve();
    },
    onError: errors.resolve,
  });
  t.after(() => watch.close());
  assert.equal(watch.sight.verdict.kind, 'fallback');
  await writeFile(join(root, CONFIG), v2('/a'));
  await next.promise;
  assert.equal(watch.sight.verdict.kind, 'configurable');
  next = Promise.withResolvers();
  await mkdir(join(root, 'var/lib/kubelet'), { recursive: true });
  await symlink('kubeadm-flags.env', join(root, 'var/lib/kubelet/kubeadm-flags.env'));
  assert.match(String(await errors.promise), /too many symbolic links/);
  isAway = true;
  await unlink(join(root, 'var/lib/kubelet/kubeadm-flags.env'));
  await writeFile(join(root, CONFIG), v2('/b'));
  await missed.promise;
  assert.deepEqual(watch.sight.certsDirs, ['/a'], 'while the runtime is away, nothing is known better');
  isAway = false;
  await next.promise;
  assert.deepEqual(changes, ['/a', '/b']);
});

test('a runtime that is silent at first is asked again where its files alone do not say enough', async (t) => {
  const root = await plant(t, { [CONFIG]: 'version = 3\n', [SOCKET]: '' });
  let asked = 0;
  const watchedWith = async (patience: number): Promise<string> => {
    asked = 0;
    const watch = await watchNode({
      root,
      askCri: () => {
        asked += 1;
        return asked < 3 ? Promise.reject(new Error('away')) : Promise.resolve(containerd('2.3.7'));
      },
      onChange: () => undefined,
      onError: () => undefined,
      patience,
      silenceMs: 1,
    });
    await watch.close();
    return watch.sight.verdict.kind;
  };
  assert.equal(await watchedWith(0), 'fallback');
  assert.equal(asked, 1);
  assert.equal(await watchedWith(1), 'fallback');
  assert.equal(await watchedWith(5), 'configurable');
  assert.equal(asked, 3, 'and no more than it takes');
});
