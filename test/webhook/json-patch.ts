import type { Operation } from '../../webhook/pod-patch.ts';

/** What a JSON Patch (RFC 6902) makes of an object; `undefined` when one of its tests fails. */
export function applyPatch(object: object, patch: readonly Operation[]): object | undefined {
  let result: unknown = structuredClone(object);
  for (const { op, path, value } of patch) {
    const steps = path
      .split('/')
      .slice(1)
      .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
    if (op === 'test') {
      // As the API server's implementation: null is what is not there.
      if (JSON.stringify(valueAt(result, steps) ?? null) !== JSON.stringify(value)) return undefined;
    } else {
      if (op !== 'add' && valueAt(result, steps) === undefined) throw new Error(`there is no ${path}`);
      result = changed(result, steps, op === 'remove' ? undefined : value);
    }
  }
  if (typeof result !== 'object' || result === null) throw new Error('the object is gone');
  return result;
}

function valueAt(value: unknown, [step, ...rest]: readonly string[]): unknown {
  if (step === undefined) return value;
  if (typeof value !== 'object' || value === null) return undefined;
  return valueAt(Object.entries(value).find(([key]) => key === step)?.[1], rest);
}

function changed(value: unknown, [step, ...rest]: readonly string[], to: unknown): unknown {
  if (step === undefined) return to;
  if (typeof value !== 'object' || value === null) throw new Error(`there is nothing that has ${step}`);
  if (Array.isArray(value))
    return value.map((item: unknown, at) => (String(at) === step ? changed(item, rest, to) : item));
  const others = Object.entries(value).filter(([key]) => key !== step);
  const inner = changed(Object.entries(value).find(([key]) => key === step)?.[1], rest, to);
  return Object.fromEntries(inner === undefined ? others : [...others, [step, inner]]);
}
