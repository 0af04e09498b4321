import json


def handler(event, context):
    print(json.dumps({"level": "INFO", "message": "an order came in", "order": event.get("order", 1)}))
    return {"statusCode": 200}
