package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// callGRPC makes one unary call with an empty message and prints its code and message.
func callGRPC(arguments []string) error {
	flags := flag.NewFlagSet("grpc", flag.ExitOnError)
	method := flags.String("method", healthpb.Health_Check_FullMethodName, "/package.Service/Method")
	timeout := flags.Duration("timeout", 5*time.Second, "")
	target, err := parse(flags, arguments)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	answer := &healthpb.HealthCheckResponse{}
	err = connection.Invoke(ctx, *method, &healthpb.HealthCheckRequest{}, answer)
	message := answer.GetStatus().String()
	if err != nil {
		message = status.Convert(err).Message()
	}
	return emit(map[string]any{"code": status.Code(err).String(), "message": message})
}

// askGRPC asks for the health of a server and gives the code of the answer.
func askGRPC(target string) (func() int, error) {
	dialer := func(ctx context.Context, address string) (net.Conn, error) {
		return dial(ctx, "tcp", address)
	}
	connection, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dialer))
	if err != nil {
		return nil, err
	}
	return func() int {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := healthpb.NewHealthClient(connection).Check(ctx, &healthpb.HealthCheckRequest{})
		return int(status.Code(err))
	}, nil
}

// talk sends one WebSocket message and prints whether it came back.
func talk(arguments []string) error {
	flags := flag.NewFlagSet("ws", flag.ExitOnError)
	timeout := flags.Duration("timeout", 5*time.Second, "")
	target, err := parse(flags, arguments)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	socket, response, err := websocket.Dial(ctx, target, nil)
	code := 0
	if response != nil {
		code = response.StatusCode
	}
	echo := ""
	if err == nil {
		defer func() { _ = socket.CloseNow() }()
		if err = socket.Write(ctx, websocket.MessageText, []byte("hello")); err == nil {
			var data []byte
			_, data, err = socket.Read(ctx)
			echo = string(data)
		}
	}
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	return emit(map[string]any{"status": code, "ok": echo == "hello", "echo": echo, "error": fault})
}

// dialTCP says what became of a connection attempt.
func dialTCP(arguments []string) error {
	flags := flag.NewFlagSet("tcp", flag.ExitOnError)
	timeout := flags.Duration("timeout", 2*time.Second, "")
	target, err := parse(flags, arguments)
	if err != nil {
		return err
	}
	connection, err := net.DialTimeout("tcp", target, *timeout)
	var timed net.Error
	result := "connected"
	switch {
	case err == nil:
		_ = connection.Close()
	case errors.Is(err, syscall.ECONNREFUSED):
		result = "refused"
	case errors.Is(err, syscall.ECONNRESET):
		result = "reset"
	case errors.As(err, &timed) && timed.Timeout():
		result = "timeout"
	default:
		return err
	}
	return emit(map[string]any{"result": result})
}

// serveTCP echoes bytes until the client closes.
func serveTCP(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("tcp-serve: give one address, such as :7000")
	}
	listener, err := net.Listen("tcp", arguments[0])
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = connection.Close() }()
			_, _ = io.Copy(connection, connection)
		}()
	}
}

// wait is a container that does nothing until it is told to end.
func wait([]string) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, os.Interrupt)
	<-told
	return nil
}
