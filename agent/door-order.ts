import { hash } from 'node:crypto';
import type { Address } from '../process/server.ts';
import { authorityOf } from './door-request.ts';

/**
 * The replicas in an order that is the same on every node for one repository (rendezvous hashing): the replica
 * that resolved a tag is also asked for its layers, so that one replica reads them from the upstream for all
 * nodes, while many repositories are spread over all replicas.
 */
export function inOrder<Member>(
  members: readonly Member[],
  addressOf: (member: Member) => Address,
  repository: string,
): readonly Member[] {
  return members
    .map((member) => ({ member, weight: hash('sha1', `${authorityOf(addressOf(member))} ${repository}`) }))
    .toSorted((a, b) => (a.weight < b.weight ? -1 : 1))
    .map(({ member }) => member);
}
