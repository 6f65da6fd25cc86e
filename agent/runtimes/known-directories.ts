import { DISTRIBUTIONS } from './distributions.ts';

/** The list that 2.2 and later set where neither `config_path` nor mirrors are (plugins/cri/images). */
export const DEFAULT_LIST = '/etc/containerd/certs.d:/etc/docker/certs.d';

/**
 * Every directory in which weir may have written without being told to: where a distribution has it, and the default
 * list, as a list and taken for one path. A node says which it is only while its runtime and its files are there.
 */
export const KNOWN_CERTS_DIRS: readonly string[] = [
  ...new Set([...DISTRIBUTIONS.map(({ certsDir }) => certsDir), ...DEFAULT_LIST.split(':'), DEFAULT_LIST]),
];
