/** What tells a distribution: one line of its os-release, or a path that is there. */
export type Sign =
  | { readonly path: string }
  | { readonly key: string; readonly is: string; readonly path?: undefined };

/** A distribution of Kubernetes, or a host made for it: where it keeps its runtime, and what can be done there. */
export interface Distribution {
  readonly name: string;
  /** All of them have to be there, of one of the lists. */
  readonly signs: readonly (readonly Sign[])[];
  readonly runtime: 'containerd' | 'cri-o' | 'docker';
  /** Where CRI may listen, likeliest first. */
  readonly sockets: readonly string[];
  /** containerd's main configuration file, likeliest first. */
  readonly configFiles: readonly string[];
  /** How its administrator sets `config_path` where it is missing, `DIR` being the directory. */
  readonly remedy: string;
  /** Where `config_path` leads to, when it is set as the remedy says. */
  readonly certsDir: string;
  /** Set where nothing that is written would last. */
  readonly refusal?: { readonly reason: string; readonly remedy: string };
  /** What is good to know and changes nothing. */
  readonly notes?: readonly string[];
}

const ETC = '/etc/containerd/certs.d';
const CONTAINERD_SOCKET = '/run/containerd/containerd.sock';
const CONTAINERD_CONFIG = '/etc/containerd/config.toml';
const usual = {
  runtime: 'containerd',
  sockets: [CONTAINERD_SOCKET],
  configFiles: [CONTAINERD_CONFIG],
  certsDir: ETC,
  remedy: `Set config_path = "${ETC}" in ${CONTAINERD_CONFIG} and restart containerd.`,
} as const;

/** One that is more particular stands before one that has the same signs and fewer. */
export const DISTRIBUTIONS: readonly Distribution[] = [
  {
    ...usual,
    name: 'Talos',
    signs: [[{ key: 'ID', is: 'talos' }]],
    configFiles: ['/etc/cri/containerd.toml'],
    certsDir: '/etc/cri/conf.d/hosts',
    refusal: {
      reason: 'Talos removes directories that are not its own from /etc/cri/conf.d/hosts',
      remedy: 'Name the mirror in a RegistryMirrorConfig document of the machine configuration.',
    },
  },
  {
    ...usual,
    name: 'Bottlerocket',
    signs: [[{ key: 'ID', is: 'bottlerocket' }]],
    refusal: {
      reason: 'Bottlerocket makes /etc/containerd anew, in memory, from its API at every start',
      remedy: 'Name the mirror in settings.container-registry.mirrors of its API.',
    },
  },
  {
    ...usual,
    name: 'OpenShift',
    signs: [
      [{ key: 'ID', is: 'rhcos' }],
      [{ key: 'ID', is: 'scos' }],
      [{ path: '/etc/machine-config-daemon' }, { path: '/etc/crio' }],
    ],
    runtime: 'cri-o',
    sockets: ['/run/crio/crio.sock'],
    refusal: {
      reason: 'the Machine Config Operator owns the files below /etc/containers and puts its own back',
      remedy: 'Name the mirror in an ImageTagMirrorSet (ITMS) and an ImageDigestMirrorSet (IDMS).',
    },
  },
  {
    ...usual,
    name: 'RKE2',
    signs: [[{ path: '/var/lib/rancher/rke2/agent' }]],
    sockets: ['/run/k3s/containerd/containerd.sock'],
    configFiles: ['/var/lib/rancher/rke2/agent/etc/containerd/config.toml'],
    certsDir: '/var/lib/rancher/rke2/agent/etc/containerd/certs.d',
    remedy:
      'Current RKE2 sets config_path itself: upgrade it, or set it in config.toml.tmpl (config-v3.toml.tmpl for containerd 2) beside config.toml, and restart rke2-server or rke2-agent.',
  },
  {
    ...usual,
    name: 'k3s',
    signs: [[{ path: '/var/lib/rancher/k3s/agent' }]],
    sockets: ['/run/k3s/containerd/containerd.sock'],
    configFiles: ['/var/lib/rancher/k3s/agent/etc/containerd/config.toml'],
    certsDir: '/var/lib/rancher/k3s/agent/etc/containerd/certs.d',
    remedy:
      'Current k3s sets config_path itself: upgrade it, or set it in config.toml.tmpl (config-v3.toml.tmpl for containerd 2) beside config.toml, and restart k3s or k3s-agent.',
  },
  {
    ...usual,
    name: 'MicroK8s',
    signs: [[{ path: '/var/snap/microk8s/current' }]],
    sockets: ['/var/snap/microk8s/common/run/containerd.sock'],
    configFiles: ['/var/snap/microk8s/current/args/containerd.toml'],
    certsDir: '/var/snap/microk8s/current/args/certs.d',
    remedy:
      'Set config_path = "/var/snap/microk8s/current/args/certs.d" in /var/snap/microk8s/current/args/containerd-template.toml and run: snap restart microk8s.daemon-containerd',
  },
  {
    ...usual,
    name: 'k0s',
    signs: [
      [{ path: '/run/k0s/containerd.sock' }],
      [{ path: '/etc/k0s/containerd.toml' }],
      [{ path: '/var/lib/k0s/bin' }],
    ],
    sockets: ['/run/k0s/containerd.sock'],
    configFiles: ['/etc/k0s/containerd.toml'],
    remedy: `Put a file with config_path = "${ETC}" into /etc/k0s/containerd.d (version 3 of the configuration from k0s 1.36 on, before that version 2): k0s sees it and restarts containerd.`,
  },
  {
    ...usual,
    // Before kind, on whose image one of its own is built.
    name: 'minikube',
    signs: [[{ path: '/var/lib/minikube' }]],
  },
  { ...usual, name: 'kind', signs: [[{ path: '/kind' }]] },
  {
    ...usual,
    name: 'EKS (AL2023)',
    signs: [[{ key: 'ID', is: 'amzn' }, { key: 'VERSION_ID', is: '2023' }, { path: '/etc/eks' }]],
    remedy: `Set config_path = "${ETC}" in spec.containerd.config of the NodeConfig, in the user data of new nodes.`,
  },
  {
    ...usual,
    name: 'AKS',
    signs: [[{ path: '/etc/kubernetes/azure.json' }]],
  },
  {
    ...usual,
    name: 'GKE (Container-Optimized OS)',
    signs: [[{ key: 'ID', is: 'cos' }]],
    certsDir: '/etc/containerd/hosts.d',
    remedy:
      "Customize containerd's configuration in the node pool, so that GKE sets config_path; a file edited on the node does not survive its restart.",
    notes: ['/etc does not survive a restart of the node: the agent writes its files again after one'],
  },
  {
    ...usual,
    name: 'Docker with cri-dockerd',
    signs: [[{ path: '/run/cri-dockerd.sock' }]],
    runtime: 'docker',
    sockets: ['/run/cri-dockerd.sock'],
  },
  {
    ...usual,
    name: 'CRI-O',
    signs: [[{ path: '/run/crio/crio.sock' }]],
    runtime: 'cri-o',
    sockets: ['/run/crio/crio.sock'],
  },
  {
    ...usual,
    name: 'kubeadm',
    signs: [[{ path: '/var/lib/kubelet/kubeadm-flags.env' }], [{ path: '/etc/kubernetes/kubelet.conf' }]],
  },
  { ...usual, name: 'plain containerd', signs: [[]] },
];

/** Of runtimes that do not read hosts.toml: what they are told by, and how they come to read it. */
export const OTHER_RUNTIMES = {
  'cri-o':
    'CRI-O is configured by a drop-in of registries.conf, which it reads at a SIGHUP (the agent needs hostPID for that), by itself with auto_reload_registries, or at its next start',
  docker:
    'Docker is configured by registry-mirrors of daemon.json, for Docker Hub alone, and reads it at a SIGHUP (the agent needs hostPID for that) or at its next start',
} as const;
