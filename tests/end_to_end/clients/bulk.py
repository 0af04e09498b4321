"""Elastic's own client, doing what the extension did: the body of a bulk request of the extension's comes on stdin, and its
documents go to the address that is given, first in one request of the client's own making and then by its helper.

Prints one line of JSON for each: what the client says became of every document, as [status, type of the error].
"""

import json
import sys

from elasticsearch import Elasticsearch, helpers

url, index = sys.argv[1:]
lines = [json.loads(line) for line in sys.stdin if line.strip()]
client = Elasticsearch(url, api_key="key", http_compress=True, max_retries=0)


def fate(item):
    (result,) = item.values()
    return [result["status"], result.get("error", {}).get("type")]


answer = client.bulk(index=index, operations=lines, filter_path="errors,items.*.status,items.*.error.type")
print(json.dumps([fate(item) for item in answer["items"]]), flush=True)

actions = (
    {"_op_type": "create", "_id": action["create"]["_id"], "_source": document}
    for action, document in zip(lines[::2], lines[1::2])
)
told = helpers.streaming_bulk(client, actions, index=index, raise_on_error=False)
print(json.dumps([fate(item) for _, item in told]), flush=True)
