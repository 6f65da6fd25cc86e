// The containerd that the tests pull with: the daemon, ctr, and a CRI client that
// pulls as the kubelet does, in one binary, chosen by the name it is called by.
// One link for three commands, and no Kubernetes: only the CRI's own interface.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	daemon "github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Longer than containerd itself waits for a registry that does not answer.
const pullTimeout = 3 * time.Minute

func main() {
	commands := map[string]func([]string) error{
		"containerd": func(args []string) error { return daemon.App().Run(args) },
		"ctr":        func(args []string) error { return ctr.New().Run(args) },
		"cri-pull":   pull,
	}
	name := filepath.Base(os.Args[0])
	run, known := commands[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: call it as containerd, ctr or cri-pull\n", name)
		os.Exit(2)
	}
	if err := run(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// pull asks the CRI socket for an image, as the kubelet would, and prints the image's id.
func pull(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: cri-pull SOCKET REFERENCE")
	}
	socket, reference := args[1], args[2]
	ctx, cancel := context.WithTimeout(context.Background(), pullTimeout)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	images := cri.NewImageServiceClient(connection)
	if err := untilInitialized(ctx, images); err != nil {
		return err
	}
	answer, err := images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: reference}})
	if err != nil {
		return err
	}
	fmt.Println(answer.ImageRef)
	return nil
}

// untilInitialized waits for CRI, whose socket in containerd 1.x answers a moment before CRI itself can.
func untilInitialized(ctx context.Context, images cri.ImageServiceClient) error {
	for {
		_, err := images.ListImages(ctx, &cri.ListImagesRequest{}, grpc.WaitForReady(true))
		if err == nil || !strings.Contains(err.Error(), "not initialized yet") {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
