import manifest from '../package.json' with { type: 'json' };

export const VERSION = manifest.version;
/** As upstream registries see us. */
export const PRODUCT = `weir/${VERSION}`;
