<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Capture\Visitor;
use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\ConsentPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP_Event_Queue;
use WP_Post;
use WP_REST_Request;
use WP_REST_Response;

/**
 * POST pmp/v1/choices: a visitor's answer to the consent banner, as JSON of any content type:
 * {"session_id": "...", "choice": "granted" or "denied", "timestamp": "..."}. It is reported for the session id, which
 * only the visitor's browser knows.
 */
final class ChoicesRoute implements Registerable
{
    public const PATH = '/choices';

    private const MAX_BYTES = 2048;

    /** The mesh accepts identifiers of 255 characters, and `session:` is part of this one. */
    private const MAX_SESSION_LENGTH = 200;

    private const REQUESTS_PER_MINUTE = 30;

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly RateLimit $rates,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        Hook::action('rest_api_init', [$this, 'add_route']);
    }

    public function add_route(): void
    {
        register_rest_route(CollectRoute::SPACE, self::PATH, [
            'methods' => 'POST',
            'callback' => [$this, 'choose'],
            'permission_callback' => '__return_true',
        ]);
    }

    public function choose(WP_REST_Request $request): WP_REST_Response
    {
        if (OwnPages::is_foreign($request)) {
            return Refusal::of(403, 7, 'Only pages of this site may call this.');
        }
        $now = $this->clock->now();
        if ($this->rates->count('choices ' . Visitor::current()->address(), $now) > self::REQUESTS_PER_MINUTE) {
            return Refusal::too_many();
        }
        $body = $request->get_body();
        $data = strlen($body) <= self::MAX_BYTES ? json_decode($body, true, 2) : null;
        $session_id = is_array($data) ? Clean::id($data['session_id'] ?? '') : '';
        $choice = is_array($data) ? $data['choice'] ?? '' : '';
        if ($session_id === '' || strlen($session_id) > self::MAX_SESSION_LENGTH || ! in_array($choice, ['granted', 'denied'], true)) {
            return Refusal::of(400, 3, 'The body is {"session_id": "...", "choice": "granted" or "denied"}.');
        }
        $time = Clean::time($data['timestamp'] ?? null);
        $payload = ConsentPayload::of([
            'analytics_tracking' => $choice === 'granted',
            'third_party_sharing' => Visitor::current()->sharing(),
            'policy_version' => $this->policy_version(),
            'source' => 'banner',
            // A browser's clock may be ahead, and a later choice would then never count.
            'timestamp' => $time === null || strtotime($time) > $now ? $now : $time,
        ]);
        $message = new Message(Kind::Consent, Uuid::make($now), $payload, "session:{$session_id}");
        return $this->queue->add($message) ? new WP_REST_Response(['success' => true], 202) : Refusal::too_many();
    }

    /**
     * The version of the privacy policy that the visitor could read: the date of its last change.
     */
    private function policy_version(): string
    {
        $page = get_post((int) get_option('wp_page_for_privacy_policy'));
        return $page instanceof WP_Post && $page->post_status === 'publish' ? substr($page->post_modified_gmt, 0, 10) : '';
    }
}
