package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// What a command leaves running in the background may hold its output open: no longer than this.
const outputPatience = 2 * time.Second

// serveExec: query command (repeated), input, output, error and tty ("1").
func serveExec(w http.ResponseWriter, r *http.Request, in pod) {
	options, err := remotecommand.NewOptions(r)
	command := r.URL.Query()["command"]
	if err == nil && len(command) == 0 {
		err = errors.New("command: give one")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if _, err := in.pid(r.PathValue("container")); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	remotecommand.ServeExec(w, r, executor{in}, in.name, "", r.PathValue("container"), command, options,
		streaming.DefaultConfig.StreamIdleTimeout, streaming.DefaultConfig.StreamCreationTimeout,
		remotecommand.SupportedStreamingProtocols)
}

type executor struct{ in pod }

// ExecInContainer returns a utilexec.ExitError if the command ended with another code than 0.
func (e executor) ExecInContainer(
	_ context.Context, _, _, container string, command []string,
	stdin io.Reader, stdout, stderr io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	pid, err := e.in.pid(container)
	if err != nil {
		return err
	}
	inside, err := commandIn(pid, command)
	if err != nil {
		return err
	}
	if tty {
		return exitCode(runWithTerminal(inside, stdin, stdout, resize))
	}
	return exitCode(run(inside, stdin, stdout, stderr))
}

// commandIn runs in the namespaces, the cgroup and the environment of the container's process.
func commandIn(pid int, command []string) (*exec.Cmd, error) {
	enter := []string{"-t", strconv.Itoa(pid), "--net", "--uts", "--mount", "--"}
	inside := exec.Command("nsenter", append(enter, command...)...)
	variables, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil, err
	}
	for _, variable := range bytes.Split(bytes.TrimRight(variables, "\x00"), []byte{0}) {
		inside.Env = append(inside.Env, string(variable))
	}
	inside.Dir = "/"
	inside.WaitDelay = outputPatience
	inside.SysProcAttr = &syscall.SysProcAttr{}
	// Not in ours: the datapath knows the kubelet by its cgroup, and lets it into every pod.
	cgroup, err := cgroupOf(pid)
	if err != nil {
		return nil, err
	}
	if cgroup != "" {
		descriptor, err := syscall.Open(cgroup, syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("cgroup %s: %w", cgroup, err)
		}
		inside.SysProcAttr.UseCgroupFD, inside.SysProcAttr.CgroupFD = true, descriptor
	}
	return inside, nil
}

// cgroupOf is the process's directory of cgroup2, "" where that is not mounted.
func cgroupOf(pid int) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	root := ""
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[2] == "cgroup2" {
			root = fields[1]
			break
		}
	}
	if root == "" {
		return "", nil
	}
	groups, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	defer groups.Close()
	for lines := bufio.NewScanner(groups); lines.Scan(); {
		if path, is := strings.CutPrefix(lines.Text(), "0::"); is {
			return filepath.Join(root, path), nil
		}
	}
	return "", fmt.Errorf("process %d is in no cgroup2", pid)
}

func start(inside *exec.Cmd, by func() error) error {
	if inside.SysProcAttr.UseCgroupFD {
		defer syscall.Close(inside.SysProcAttr.CgroupFD)
	}
	return by()
}

func run(inside *exec.Cmd, stdin io.Reader, stdout, stderr io.WriteCloser) error {
	if stdout != nil {
		inside.Stdout = stdout
	}
	if stderr != nil {
		inside.Stderr = stderr
	}
	if stdin != nil {
		// By a pipe of our own: Wait would wait for the client to close its end.
		pipe, err := inside.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			defer pipe.Close()
			_, _ = io.Copy(pipe, stdin)
		}()
	}
	if err := start(inside, inside.Start); err != nil {
		return err
	}
	return inside.Wait()
}

func runWithTerminal(
	inside *exec.Cmd, stdin io.Reader, stdout io.Writer, resize <-chan remotecommand.TerminalSize,
) error {
	var terminal *os.File
	inside.SysProcAttr.Setsid, inside.SysProcAttr.Setctty = true, true
	err := start(inside, func() (err error) {
		terminal, err = pty.StartWithAttrs(inside, nil, inside.SysProcAttr)
		return err
	})
	if err != nil {
		return err
	}
	defer terminal.Close()
	go func() {
		for size := range resize {
			_ = pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
		}
	}()
	if stdin != nil {
		go func() { _, _ = io.Copy(terminal, stdin) }()
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		if stdout != nil {
			_, _ = io.Copy(stdout, terminal) // ends with EIO once nobody has the other side
		}
	}()
	err = inside.Wait()
	select {
	case <-shown:
	case <-time.After(outputPatience):
	}
	return err
}

// exitCode says it in the library's way, and a signal in the shell's way.
func exitCode(err error) error {
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		if errors.Is(err, exec.ErrWaitDelay) {
			return nil // it ended well; its children hold the output open
		}
		return err
	}
	code := ended.ExitCode()
	if status, is := ended.Sys().(syscall.WaitStatus); is && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return utilexec.CodeExitError{Err: err, Code: code}
}
