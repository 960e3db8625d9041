<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Capture\Visitor;
use PMP\Analytics\Payload\ConsentPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP_Event_Queue;
use WP_REST_Response;

/**
 * Reports the visitor's choice about sharing data with third parties whenever it has changed. Consent tools keep it in a cookie and
 * say it to nobody: it is noticed with the next events of the browser.
 */
final class SharingChoice
{
    /** What was reported last: session and choice. */
    private const REPORTED = 'pmp_sharing';

    public function __construct(private readonly PMP_Event_Queue $queue)
    {
    }

    /**
     * @return WP_REST_Response The response, with a cookie that remembers what was reported.
     */
    public function report(Visitor $visitor, float $now, WP_REST_Response $response): WP_REST_Response
    {
        $choice = $visitor->sharing();
        $session_id = $visitor->session_id();
        $reported = "{$session_id}." . ($choice === true ? 'yes' : 'no');
        if ($choice === null || $session_id === '' || $visitor->cookie(self::REPORTED) === $reported) {
            return $response;
        }
        $payload = ConsentPayload::of(['third_party_sharing' => $choice, 'source' => 'banner', 'timestamp' => $now]);
        if ($this->queue->add(new Message(Kind::Consent, Uuid::make($now), $payload, "session:{$session_id}"))) {
            $secure = is_ssl() ? '; secure' : '';
            $response->header('Set-Cookie', self::REPORTED . "={$reported}; path=/; samesite=lax; httponly{$secure}", false);
        }
        return $response;
    }
}
