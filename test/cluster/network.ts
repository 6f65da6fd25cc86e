// The wires of the test cluster, as a script for the sandbox around it: a network namespace for each machine, a
// switch between them, and the upstreams' addresses where the switch leads out.

import {
  CONTROL_PLANE,
  GATEWAY,
  NODE_NETWORK_BITS,
  nodeAddress,
  nodeName,
  PUBLIC_DNS,
  podRange,
  REGISTRIES,
} from './layout.ts';

export const CONTROL_PLANE_NETWORK = 'control-plane';
const SWITCH = 'switch';

export function networkScript(nodes: number): string {
  const numbers = Array.from({ length: nodes }, (_, index) => index + 1);
  const machines = [
    { name: CONTROL_PLANE_NETWORK, address: CONTROL_PLANE },
    ...numbers.map((number) => ({ name: nodeName(number), address: nodeAddress(number) })),
  ];
  return [
    'ip link set lo up',
    ...[PUBLIC_DNS, ...REGISTRIES.map(({ address }) => address)].map(
      (address) => `ip address add ${address}/32 dev lo`,
    ),
    `ip link add ${SWITCH} type bridge`,
    `ip address add ${GATEWAY}/${NODE_NETWORK_BITS} dev ${SWITCH}`,
    `ip link set ${SWITCH} up`,
    'echo 1 > /proc/sys/net/ipv4/ip_forward',
    ...machines.flatMap(({ name, address }, index) => [
      `ip netns add ${name}`,
      `ip link add to${index} type veth peer name eth0 netns ${name}`,
      `ip link set to${index} master ${SWITCH} up`,
      `ip -n ${name} link set lo up`,
      `ip -n ${name} address add ${address}/${NODE_NETWORK_BITS} dev eth0`,
      `ip -n ${name} link set eth0 up`,
      `ip -n ${name} route add default via ${GATEWAY}`,
      // A node forwards for its Pods.
      `ip netns exec ${name} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'`,
    ]),
    ...numbers.map((number) => `ip route add ${podRange(number)} via ${nodeAddress(number)}`),
    ...machines.flatMap(({ name }) =>
      numbers
        .filter((number) => nodeName(number) !== name)
        .map((number) => `ip -n ${name} route add ${podRange(number)} via ${nodeAddress(number)}`),
    ),
  ].join('\n');
}
