"""An export of tfllm behind the embedded server, asked over gRPC.

Client and server are threads of one process, so that its processor time has both of them.
"""

from pathlib import Path

from worker import answer_lines, arguments

args = arguments()
running = []  # a server that nothing refers to would end


def load():
    from tfllm_request import inputs_of, signature_of, tokens_written

    from tfllm.serving import Client, Server

    base = Path(args.folder).parent
    server = Server({"model": str(base)}, port=0, poll_s=3600).start()
    running.append(server)
    server.wait_until_available()  # it has replayed the warm-up requests then
    client = Client(f"127.0.0.1:{server.port}", "model", timeout_s=600)

    def write(request):
        outputs = client.predict(inputs_of(request), signature_of(args.beams))
        return tokens_written(outputs, request)

    return write


answer_lines(load)
