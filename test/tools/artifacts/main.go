// What the tests of artifacts need: a registry with the referrers API, which the reference
// registry lacks, and oras, a client that asks for referrers. One binary, chosen by the name
// it is called by.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	oras "oras.land/oras/cmd/oras/root"
)

func main() {
	commands := map[string]func() error{"oci-registry": serve, "oras": oras.New().Execute}
	name := filepath.Base(os.Args[0])
	command, known := commands[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: call it as oci-registry or oras\n", name)
		os.Exit(2)
	}
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve keeps what is pushed in memory. A manifest may come before what it names.
func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	registry := ocimem.NewWithConfig(&ocimem.Config{LaxChildReferences: true})
	return http.Serve(listener, ociserver.New(registry, nil))
}
