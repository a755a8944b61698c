package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// serve answers HTTP/1.1, HTTP/2 with prior knowledge, gRPC and WebSocket on one port.
func serve(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	address := flags.String("http", ":8080", "address to listen on")
	grpcAddress := flags.String("grpc", "", "another address, for gRPC alone")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	rpc := grpc.NewServer()
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/trailers", trailers)
	mux.HandleFunc("/bytes", bytes)
	mux.HandleFunc("/ws", echoSocket)
	mux.Handle("/grpc.health.v1.Health/", rpc)
	mux.HandleFunc("/", say)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	if *grpcAddress != "" {
		listener, err := net.Listen("tcp", *grpcAddress)
		if err != nil {
			return err
		}
		go func() { _ = rpc.Serve(listener) }()
	}
	server := &http.Server{Addr: *address, Handler: mux, Protocols: &protocols}
	return server.ListenAndServe()
}

// say tells the client everything about its request.
func say(w http.ResponseWriter, r *http.Request) {
	host, _ := os.Hostname()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"pod": host, "method": r.Method, "path": r.RequestURI, "proto": r.Proto,
		"remote": r.RemoteAddr, "host": r.Host, "headers": r.Header,
	})
}

func number(r *http.Request, name string, otherwise int) int {
	if value, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil {
		return value
	}
	return otherwise
}

// stream sends a line every interval_ms for so many seconds.
func stream(w http.ResponseWriter, r *http.Request) {
	interval := time.Duration(number(r, "interval_ms", 100)) * time.Millisecond
	end := time.Now().Add(time.Duration(number(r, "seconds", 1)) * time.Second)
	for n := 0; time.Now().Before(end); n++ {
		if _, err := fmt.Fprintf(w, "%d\n", n); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		time.Sleep(interval)
	}
	fmt.Fprintln(w, "end")
}

// trailers sends one of its own, and gives the client's back as another.
func trailers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Checksum, X-Yours")
	_, _ = io.Copy(io.Discard, r.Body) // the trailers of the request are read with its end
	fmt.Fprintln(w, "body")
	w.(http.Flusher).Flush()
	w.Header().Set("X-Checksum", "1234")
	w.Header().Set("X-Yours", r.Trailer.Get("X-Mine"))
}

func bytes(w http.ResponseWriter, r *http.Request) {
	_, _ = w.Write(make([]byte, number(r, "n", 1024)))
}

func echoSocket(w http.ResponseWriter, r *http.Request) {
	socket, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = socket.CloseNow() }()
	for {
		kind, data, err := socket.Read(context.Background())
		if err != nil || socket.Write(context.Background(), kind, data) != nil {
			return
		}
	}
}
