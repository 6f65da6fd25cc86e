/**
 * Repository names and tags as the OCI distribution specification has them ("Pulling manifests").
 * The length limit is that of Docker and containerd, of which some count the registry host in; what is read here may
 * be as long without it.
 */
export const MAX_NAME_LENGTH = 255;

const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

export function isRepository(name: string): boolean {
  return name.length <= MAX_NAME_LENGTH && REPOSITORY.test(name);
}

export function isTag(tag: string): boolean {
  return TAG.test(tag);
}
