/**
 * Addresses that are never a registry, and that a careless or hostile configuration would make ours ask:
 * clouds' metadata services, and names of the cluster's own API server.
 */
const METADATA_ADDRESSES: ReadonlySet<string> = new Set([
  '169.254.169.254', // AWS, GCP, Azure and most others
  '169.254.170.2', // AWS: credentials of ECS tasks
  '169.254.170.23', // AWS: credentials of EKS Pods
  '100.100.100.200', // Alibaba Cloud
  '168.63.129.16', // Azure's platform address
  '[fd00:ec2::254]',
  '[fd00:ec2::23]',
  'metadata.google.internal',
  'metadata.goog',
]);

const API_SERVER = /^kubernetes(?:\.default(?:\.svc(?:\.[a-z0-9.-]+)?)?)?$/;

/** Whether this host of a URL (IPv6 in brackets) is one of them by name or by literal address. */
export function isForbiddenTarget(hostname: string): boolean {
  return METADATA_ADDRESSES.has(hostname) || API_SERVER.test(hostname);
}
