import { arch } from 'node:process';

/** `OS/ARCHITECTURE[/VARIANT]`, as an index of the image specification has them. */
const PLATFORM = /^[a-z0-9]+\/[a-z0-9]+(?:\/[a-z0-9]+)?$/;

/** By which a door tells the registry what its node is. */
export const PLATFORM_HEADER = 'weir-platform';

export function isPlatform(text: string): boolean {
  return PLATFORM.test(text);
}

/** Of this machine. */
export function ownPlatform(): string {
  return `linux/${goArchitecture()}`;
}

/** As Go names it, and so the image specification. */
export function goArchitecture(): string {
  const names: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };
  return names[arch] ?? arch;
}
