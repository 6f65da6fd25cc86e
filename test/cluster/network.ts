// The wires of the test cluster, as scripts for the sandbox around it: a network namespace for each machine, a
// switch between them, and the upstreams' addresses where the switch leads out.

import {
  CONTROL_PLANE,
  GATEWAY,
  NODE_NETWORK_BITS,
  nodeAddress,
  nodeName,
  numbersUpTo,
  PUBLIC_DNS,
  podRange,
  REGISTRIES,
} from './layout.ts';

export const CONTROL_PLANE_NETWORK = 'control-plane';
const SWITCH = 'switch';

/** The switch with the control plane and this many nodes on it. */
export function networkScript(nodes: number): string {
  const numbers = numbersUpTo(nodes);
  return [
    'ip link set lo up',
    ...[PUBLIC_DNS, ...REGISTRIES.map(({ address }) => address)].map(
      (address) => `ip address add ${address}/32 dev lo`,
    ),
    // Its hardware address would otherwise be that of a port, and change as machines come and go.
    `ip link add ${SWITCH} address ${hardwareAddress(255)} type bridge`,
    `ip address add ${GATEWAY}/${NODE_NETWORK_BITS} dev ${SWITCH}`,
    `ip link set ${SWITCH} up`,
    'echo 1 > /proc/sys/net/ipv4/ip_forward',
    ...numbers.map((number) => `ip route add ${podRange(number)} via ${nodeAddress(number)}`),
    ...plug({ name: CONTROL_PLANE_NETWORK, address: CONTROL_PLANE, port: 0 }, numbers),
    ...numbers.flatMap((number) => plug(nodePort(number), numbers)),
  ].join('\n');
}

/** Gives one of so many nodes a network without anything that was in its old one, as a reboot does. */
export function renewalScript(number: number, nodes: number): string {
  const node = nodePort(number);
  return [
    `ip link delete to${node.port}`,
    `ip netns delete ${node.name}`,
    ...plug(node, numbersUpTo(nodes)),
  ].join('\n');
}

interface Port {
  readonly name: string;
  readonly address: string;
  /** Of the switch. */
  readonly port: number;
}

function nodePort(number: number): Port {
  return { name: nodeName(number), address: nodeAddress(number), port: number };
}

function plug({ name, address, port }: Port, nodes: readonly number[]): string[] {
  return [
    `ip netns add ${name}`,
    `ip link add to${port} type veth peer name eth0 address ${hardwareAddress(port)} netns ${name}`,
    `ip link set to${port} master ${SWITCH} up`,
    `ip -n ${name} link set lo up`,
    `ip -n ${name} address add ${address}/${NODE_NETWORK_BITS} dev eth0`,
    `ip -n ${name} link set eth0 up`,
    `ip -n ${name} route add default via ${GATEWAY}`,
    // A node forwards for its Pods.
    `ip netns exec ${name} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'`,
    ...nodes
      .filter((number) => nodeName(number) !== name)
      .map((number) => `ip -n ${name} route add ${podRange(number)} via ${nodeAddress(number)}`),
  ];
}

/** A machine keeps its own over a reboot: its neighbours remember it. */
function hardwareAddress(port: number): string {
  return `02:00:00:00:00:${port.toString(16).padStart(2, '0')}`;
}
