// What the containers of the cluster tests run: as small as a real server gets, and static, so that an image
// of it needs nothing else.
//
//	workload pause         waits until it is told to end; it is also the sandbox of every Pod
//	workload web [:8080]   answers each request with its host name
//	workload get URL       writes the answer; fails unless it is a 200
//	workload write F TEXT  writes a file
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const patience = 5 * time.Second

func main() {
	command, rest := "", []string{}
	if len(os.Args) > 1 {
		command, rest = os.Args[1], os.Args[2:]
	}
	var err error
	switch {
	case command == "pause" && len(rest) == 0:
		pause()
	case command == "web" && len(rest) <= 1:
		err = web(append(rest, ":8080")[0])
	case command == "get" && len(rest) == 1:
		err = get(rest[0])
	case command == "write" && len(rest) == 2:
		err = os.WriteFile(rest[0], []byte(rest[1]), 0o644)
	default:
		err = fmt.Errorf("usage: workload pause | web [ADDRESS] | get URL | write FILE TEXT")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

// pause also reaps what a Pod with a shared process namespace leaves to its first process.
func pause() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

func web(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	// As PID 1 it would not end by a signal that it does not handle.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ends
		os.Exit(0)
	}()
	return http.ListenAndServe(address, http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(answer, "%s %s\n", name, request.RemoteAddr)
	}))
}

func get(url string) error {
	client := http.Client{Timeout: patience}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}
