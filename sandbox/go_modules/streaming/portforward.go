package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
)

const dialTimeout = 5 * time.Second

func servePortForward(w http.ResponseWriter, r *http.Request, in pod) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{in}, in.name, "", options,
		streaming.DefaultConfig.StreamIdleTimeout, streaming.DefaultConfig.StreamCreationTimeout,
		portforward.SupportedProtocols)
}

type forwarder struct{ in pod }

// PortForward copies both ways until either end has closed.
func (f forwarder) PortForward(
	_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser,
) error {
	defer stream.Close()
	pids, err := f.in.pids()
	if err != nil {
		return err
	}
	for _, pid := range pids { // whichever: they share the pod's network
		connection, err := dialIn(pid, port)
		if err != nil {
			return fmt.Errorf("pod %s: %w", f.in.name, err)
		}
		defer connection.Close()
		ended := make(chan error, 2)
		go func() { _, err := io.Copy(stream, connection); ended <- err }()
		go func() {
			_, err := io.Copy(connection, stream)
			_ = connection.(*net.TCPConn).CloseWrite()
			if err != nil {
				ended <- err
			}
		}()
		return <-ended
	}
	return fmt.Errorf("pod %s: no container of it runs", f.in.name)
}

// dialIn opens its socket in the network namespace of the process, on the pod's loopback.
func dialIn(pid int, port int32) (net.Conn, error) {
	type result struct {
		net.Conn
		error
	}
	dialled := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		connection, err := func() (net.Conn, error) {
			namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return nil, err
			}
			defer namespace.Close()
			if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, err
			}
			target := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
			return net.DialTimeout("tcp4", target, dialTimeout)
		}()
		dialled <- result{connection, err}
	}()
	made := <-dialled
	return made.Conn, made.error
}
