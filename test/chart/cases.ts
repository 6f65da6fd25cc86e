// Values that the chart is rendered with: each as operators would write them.

const s3 = {
  s3: { region: 'us-east-1', bucket: 'images', regionEndpoint: 'http://minio.storage:9000' },
  s3Credentials: { accessKeyId: 'key', secretAccessKey: 'secret' },
};

export const cases: ReadonlyMap<string, object> = new Map<string, object>([
  ['no values', {}],
  ['S3, as the chart before took it', s3],
  [
    "S3 with the service account's role",
    {
      s3: { region: 'eu-central-1', bucket: 'images', prefix: 'a/b' },
      registry: {
        serviceAccount: { annotations: { 'eks.amazonaws.com/role-arn': 'arn:aws:iam::1:role/weir' } },
      },
    },
  ],
  ['a volume', { persistence: { enabled: true, storageClass: 'fast' } }],
  [
    'a ConfigMap and Secrets of the user',
    {
      config: { existingConfigMap: 'mine' },
      s3: { bucket: 'images', region: 'x', ca: 'corp.pem' },
      s3Credentials: { existingSecret: 'keys' },
      upstreamCredentials: { existingSecret: 'docker' },
      ca: { existingSecret: 'bundles' },
      clash: { enabled: true, existingSecret: 'clash' },
    },
  ],
  [
    'the configuration of ketches/registry-proxy, with every Pod rewritten',
    {
      config: {
        enabled: true,
        proxies: { 'docker.io': 'docker.mirror.example', 'ghcr.io': 'ghcr.mirror.example' },
        includeNamespaces: ['*'],
        fallback: 'always',
      },
    },
  ],
  ['a URL', { mirrorAddress: 'https://mirror.example:5000' }],
  [
    'the Service',
    { mirrorAddress: 'service', service: { ipFamilyPolicy: 'SingleStack', ipFamilies: ['IPv6'] } },
  ],
  ['TLS on the registry', { ...s3, registry: { tls: { enabled: true, existingSecret: 'registry-tls' } } }],
  [
    'TLS on the registry, its authority in a ConfigMap, read by Prometheus',
    {
      registry: { tls: { enabled: true, existingSecret: 'registry-tls', existingCaConfigMap: 'authority' } },
      nodePort: { enabled: true },
      metrics: { serviceMonitor: { enabled: true }, prometheusRule: { enabled: true } },
    },
  ],
  [
    'everything at once',
    {
      ...s3,
      global: { imageRegistry: 'harbor.corp/mirror', imagePullSecrets: ['pull'] },
      imagePullSecrets: [{ name: 'other' }],
      image: { registry: 'ghcr.io', tag: '1', digest: `sha256:${'0'.repeat(64)}` },
      commonLabels: { team: 'platform', 'helm.sh/chart': 'mine' },
      logLevel: 'debug',
      mirrorAddress: 'nodePort',
      nodePort: { enabled: true, port: 30_500, annotations: { a: 'b' } },
      config: {
        defaults: { tags: { ttl: '10m' }, timeouts: { idle: '10s' }, warm: ['linux/arm64', 'nodes'] },
        upstreams: {
          'docker.io': {},
          'harbor.corp:8443': { credentials: 'corp', access: 'everyone', ca: 'corp.pem', egress: 'clash' },
        },
        egress: { clash: { proxy: 'http://127.0.0.1:7890' } },
        skipOwners: ['Cluster.postgresql.cnpg.io'],
      },
      ca: { bundles: { 'corp.pem': '-----BEGIN CERTIFICATE-----\n' }, existingConfigMap: 'more' },
      upstreamCredentials: { registries: { corp: { username: 'u', password: 'p' } } },
      clash: { enabled: true, subscriptionUrl: 'https://example.com/s' },
      agent: {
        criticalPodsQuota: true,
        nodeSelector: { pool: 'a' },
        affinity: { nodeAffinity: {} },
        podAnnotations: { 'kubectl.kubernetes.io/default-container': 'agent' },
        podLabels: { a: 'b', team: 'images' },
        extraEnv: [{ name: 'A', value: 'b' }],
        extraVolumes: [{ name: 'extra', emptyDir: {} }],
        extraVolumeMounts: [{ name: 'extra', mountPath: '/extra' }],
      },
      registry: {
        replicas: 3,
        priorityClassName: 'high',
        spool: { sizeLimit: '20Gi' },
        tolerations: [{ operator: 'Exists' }],
        affinity: { podAntiAffinity: {} },
        podAnnotations: { 'kubectl.kubernetes.io/default-container': 'extra' },
        podLabels: { a: 'b', team: 'images' },
        extraEnv: [{ name: 'A', value: 'b' }],
        extraVolumes: [{ name: 'extra', emptyDir: {} }],
        extraVolumeMounts: [{ name: 'extra', mountPath: '/extra' }],
        extraContainers: [{ name: 'extra', image: 'extra' }],
        topologySpreadConstraints: [],
      },
      webhook: {
        replicas: 3,
        rewriteTo: 'mirror.corp:8443',
        fallbackNodeSelector: 'pool in (edge, virtual),!other',
        port: 8443,
        priorityClassName: 'high',
        nodeSelector: { pool: 'a' },
        tolerations: [{ operator: 'Exists' }],
        affinity: { podAntiAffinity: {} },
        topologySpreadConstraints: [],
        podAnnotations: { a: 'b' },
        podLabels: { a: 'b', team: 'images' },
        extraEnv: [{ name: 'A', value: 'b' }],
      },
      service: { clusterIP: '10.96.0.50', annotations: { a: 'b' } },
      networkPolicy: {
        enabled: true,
        from: [{ ipBlock: { cidr: '10.0.0.0/16' } }],
        egress: [{ ports: [{ port: 443, protocol: 'TCP' }] }],
      },
      metrics: {
        podMonitor: { enabled: true, labels: { release: 'prometheus', team: 'metrics' } },
        serviceMonitor: { enabled: true },
        prometheusRule: { enabled: true, additionalRules: [{ alert: 'Mine', expr: 'vector(1)' }] },
      },
    },
  ],
]);

/** The values as flags of Helm. */
export function flagsOf(values: object): string[] {
  return Object.entries(values).flatMap(([key, value]) => ['--set-json', `${key}=${JSON.stringify(value)}`]);
}
