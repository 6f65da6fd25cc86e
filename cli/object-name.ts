import type { ObjectName } from '../kubernetes/client.ts';
import { UsageError } from '../process/lifecycle.ts';

/** RFC 1123, with the dots that names of ConfigMaps and Services may have. */
const NAME = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/;

/** Reads `NAMESPACE/NAME`. @throws UsageError when it is not that. */
export function parseObjectName(text: string, flag: string): ObjectName {
  const [namespace = '', name = '', ...more] = text.split('/');
  if (more.length > 0 || !NAME.test(namespace) || !NAME.test(name))
    throw new UsageError(`${flag} takes NAMESPACE/NAME, and "${text}" is not that`);
  return { namespace, name };
}
