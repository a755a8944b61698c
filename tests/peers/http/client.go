package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// dials counts the connections of this process, to tell a kept one from a new one.
var dials atomic.Int64

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	dials.Add(1)
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// client speaks one protocol over as few connections as it can.
func client(http2 bool, timeout time.Duration) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		Protocols: &protocols, MaxConnsPerHost: 1, DisableCompression: true,
		DialContext: dial,
	}}
}

func emit(value any) error { return json.NewEncoder(os.Stdout).Encode(value) }

type headers map[string]string

func (h headers) String() string { return fmt.Sprint(map[string]string(h)) }
func (h headers) Set(text string) error {
	name, value, _ := strings.Cut(text, ":")
	h[strings.TrimSpace(name)] = strings.TrimSpace(value)
	return nil
}

// get makes one request and prints status, protocol, headers, body and trailers.
func get(arguments []string) error {
	flags := flag.NewFlagSet("get", flag.ExitOnError)
	http2 := flags.Bool("http2", false, "HTTP/2 with prior knowledge")
	method := flags.String("method", "GET", "")
	data := flags.String("data", "", "request body")
	timeout := flags.Duration("timeout", 5*time.Second, "")
	given, late := headers{}, headers{}
	flags.Var(given, "header", "name: value")
	flags.Var(late, "trailer", "name: value, after the body, which is then of unsaid length")
	target, err := parse(flags, arguments)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(*method, target, strings.NewReader(*data))
	if err != nil {
		return err
	}
	for name, value := range given {
		request.Header.Set(name, value)
	}
	if len(late) > 0 {
		request.ContentLength, request.Trailer = -1, http.Header{}
	}
	for name, value := range late {
		request.Trailer.Set(name, value)
	}
	response, err := client(*http2, *timeout).Do(request)
	if err != nil {
		return emit(map[string]any{"status": 0, "error": err.Error()})
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	return emit(map[string]any{
		"status": response.StatusCode, "proto": response.Proto, "headers": response.Header,
		"body": string(body), "trailers": response.Trailer, "error": fault,
	})
}

func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano()
}

func askHTTP(asking *http.Client, target string) func() int {
	return func() int {
		response, err := asking.Get(target)
		if err != nil {
			return 0
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return response.StatusCode
	}
}

// hold asks again and again over one live connection and prints each change of the status, with the
// number of connections that it took so far.
func hold(arguments []string) error {
	flags := flag.NewFlagSet("hold", flag.ExitOnError)
	http2 := flags.Bool("http2", false, "")
	rpc := flags.Bool("grpc", false, "a health check of host:port; the status is gRPC's code")
	interval := flags.Duration("interval", time.Millisecond, "")
	duration := flags.Duration("duration", 10*time.Second, "")
	target, err := parse(flags, arguments)
	if err != nil {
		return err
	}
	ask := askHTTP(client(*http2, 5*time.Second), target)
	if *rpc {
		if ask, err = askGRPC(target); err != nil {
			return err
		}
	}
	last := -1
	for end := time.Now().Add(*duration); time.Now().Before(end); time.Sleep(*interval) {
		status := ask()
		if status != last {
			seen := map[string]any{"status": status, "t": monotonic(), "dials": dials.Load()}
			if err := emit(seen); err != nil {
				return err
			}
			last = status
		}
	}
	return nil
}

// askOn asks over a connection that is open; the status, or 0 where there was no whole answer.
func askOn(connection net.Conn, answers *bufio.Reader, request *http.Request) int {
	_ = connection.SetDeadline(time.Now().Add(time.Minute))
	if request.Write(connection) != nil {
		return 0
	}
	response, err := http.ReadResponse(answers, request)
	if err != nil {
		return 0
	}
	if _, err = io.Copy(io.Discard, response.Body); err != nil {
		return 0
	}
	return response.StatusCode
}

// load opens all connections at once and asks twice on each. There is no second attempt: an answer
// to the second request means that the connection was kept until all were open.
func load(arguments []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	count := flags.Int("conns", 100, "")
	target, err := parse(flags, arguments)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	var ok, failed atomic.Int64
	tell := func(status int) {
		if status == http.StatusOK {
			ok.Add(1)
		} else {
			failed.Add(1)
		}
	}
	var all, open sync.WaitGroup
	open.Add(*count)
	for range *count {
		all.Go(func() {
			connection, err := net.DialTimeout("tcp", request.URL.Host, time.Minute)
			if err != nil {
				failed.Add(2)
				open.Done()
				return
			}
			defer func() { _ = connection.Close() }()
			answers := bufio.NewReader(connection)
			tell(askOn(connection, answers, request))
			open.Done()
			open.Wait()
			tell(askOn(connection, answers, request))
		})
	}
	all.Wait()
	return emit(map[string]any{"ok": ok.Load(), "failed": failed.Load()})
}

// parse takes flags before and after the one target, which it returns.
func parse(flags *flag.FlagSet, arguments []string) (string, error) {
	if err := flags.Parse(arguments); err != nil {
		return "", err
	}
	target := flags.Arg(0)
	if target == "" {
		return "", fmt.Errorf("%s: give a URL or an address", flags.Name())
	}
	if err := flags.Parse(flags.Args()[1:]); err != nil {
		return "", err
	}
	if flags.NArg() > 0 {
		return "", fmt.Errorf("%s: unexpected %q", flags.Name(), flags.Args())
	}
	return target, nil
}
