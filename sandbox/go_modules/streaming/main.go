// kubelet-streaming serves what a kube-apiserver asks of a kubelet: logs, exec and port-forward of
// the pods that the sandbox runs. It knows them by the files that the sandbox writes, and by nothing
// else. Source: pkg/kubelet/server of Kubernetes 1.36 for paths and query parameters.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("kubelet-streaming: ")
	var address, cert, key, clientCA, client, dir string
	var port int
	flag.StringVar(&address, "address", "", "address to listen on; all of them by default")
	flag.IntVar(&port, "port", 10250, "port to listen on")
	flag.StringVar(&cert, "cert", "", "our certificate (PEM)")
	flag.StringVar(&key, "key", "", "its key (PEM)")
	flag.StringVar(&clientCA, "client-ca", "", "who signs clients' certificates (PEM)")
	flag.StringVar(&client, "client-name", "kube-apiserver-kubelet-client",
		"common name that a client's certificate must have")
	flag.StringVar(&dir, "dir", "", "the node's sandbox directory, which has pods/")
	flag.Parse()
	if cert == "" || key == "" || clientCA == "" || dir == "" || flag.NArg() > 0 {
		log.Fatal("--cert, --key, --client-ca and --dir are required, and no arguments")
	}
	tlsConfig, err := clientsOf(clientCA, client)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Addr:              net.JoinHostPort(address, strconv.Itoa(port)),
		Handler:           handler(pods{filepath.Join(dir, "pods")}),
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 10 * time.Second,
		// SPDY and WebSocket upgrades are of HTTP/1.1: HTTP/2 is never offered.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	log.Fatal(server.ListenAndServeTLS(cert, key))
}

// clientsOf lets in the one client that has a certificate of this CA and this name: the cluster's
// nodes have certificates of the same CA, and must not exec into each other's pods.
func clientsOf(caFile, name string) (*tls.Config, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	known := x509.NewCertPool()
	if !known.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--client-ca %s: no certificate in it", caFile)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs:  known,
		VerifyConnection: func(state tls.ConnectionState) error {
			if got := state.PeerCertificates[0].Subject.CommonName; got != name {
				return fmt.Errorf("client %q may not ask here, only %q may", got, name)
			}
			return nil
		},
	}, nil
}

func handler(known pods) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", with(known, serveLogs))
	for _, method := range []string{"GET", "POST"} { // WebSocket, SPDY
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", with(known, serveExec))
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", with(known, servePortForward))
		mux.HandleFunc(method+" /attach/", notImplemented)
		mux.HandleFunc(method+" /run/", notImplemented)
	}
	return mux
}

// with answers 404 for a pod that is not here, or gives the pod to serve.
func with(known pods, serve func(http.ResponseWriter, *http.Request, pod)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		found, err := known.find(r.PathValue("namespace"), r.PathValue("pod"))
		if errors.Is(err, os.ErrNotExist) {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		serve(w, r, found)
	}
}

func notImplemented(w http.ResponseWriter, r *http.Request) {
	http.Error(w, r.URL.Path+": the sandbox does not serve this", http.StatusNotImplemented)
}
