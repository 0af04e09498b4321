def handler(event, context):
    print("an order came in")
    return {"statusCode": 200}
